# A migration on as many machines as there are shards: a batch job, each allocation with a share of the keys and a journal of its own on
# a volume that outlives it. One that dies is started again with its index, and goes on where its journal ends. Then, where the
# volume is mounted: minio-migrate status --journals /journals
# `count` and the N in --shard are one number.
job "minio-migrate" {
  type = "batch"

  group "shards" {
    count = 4

    volume "journals" {
      type            = "csi"
      source          = "minio-migrate-journals"
      access_mode     = "multi-node-multi-writer"
      attachment_mode = "file-system"
    }

    restart {
      attempts = 20
      interval = "24h"
      delay    = "15s"
      mode     = "fail"
    }

    task "copy" {
      driver = "exec"

      volume_mount {
        volume      = "journals"
        destination = "/journals"
      }

      config {
        command = "/bin/sh"
        args = ["-c", <<-EOT
          shard=$((NOMAD_ALLOC_INDEX + 1))
          exec /usr/local/bin/minio-migrate --shard "$shard/4" --journal "/journals/$shard.sqlite" \
            --bucket veza-prod-tracks --memory 256MiB
        EOT
        ]
      }

      template {
        destination = "secrets/source"
        data        = "{{ with nomadVar \"nomad/jobs/minio-migrate\" }}{{ .source }}{{ end }}"
      }

      template {
        destination = "secrets/target"
        data        = "{{ with nomadVar \"nomad/jobs/minio-migrate\" }}{{ .target }}{{ end }}"
      }

      env {
        MINIO_SRC_ENDPOINT        = "http://minio-old:9000"
        MINIO_DST_ENDPOINTS       = "http://minio-1:9000,http://minio-2:9000,http://minio-3:9000,http://minio-4:9000"
        MINIO_SRC_ACCESS_KEY      = "veza-migrate"
        MINIO_DST_ACCESS_KEY      = "veza-migrate"
        MINIO_SRC_SECRET_KEY_FILE = "${NOMAD_SECRETS_DIR}/source"
        MINIO_DST_SECRET_KEY_FILE = "${NOMAD_SECRETS_DIR}/target"
        VEZA_STATE_DIR            = "/journals/state"
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}

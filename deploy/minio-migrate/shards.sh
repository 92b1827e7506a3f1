#!/bin/sh
# A migration in N processes, on this machine or in N Incus instances; each has a share of the keys and a journal of its own. One that ends
# with 5 (incomplete) or is killed is started again, and goes on where its journal ends. At the end all journals are looked at together.
#
#   MINIO_SRC_ENDPOINT=... MINIO_DST_ENDPOINTS=... shards.sh 4 FOLDER --bucket veza-prod-tracks
#   RUN='incus exec mover-%s --' shards.sh 4 /journals --bucket veza-prod-tracks    (%s is the shard; FOLDER is a volume in all of them)
set -eu
shards=$1 folder=$2
shift 2
mkdir -p "$folder"
: "${MIGRATE:=minio-migrate}" "${RUN:=}" "${TRIES:=20}"

one() {
  shard=$1
  shift
  # shellcheck disable=SC2059,SC2086
  run=$(printf "$RUN" "$shard")
  try=0
  while :; do
    code=0
    $run "$MIGRATE" --quiet --shard "$shard/$shards" --journal "$folder/$shard.sqlite" "$@" || code=$?
    try=$((try + 1))
    case $code in
      5 | 129 | 130 | 137 | 143) [ "$try" -lt "$TRIES" ] || return "$code" ;;
      *) return "$code" ;;
    esac
  done
}

shard=1
while [ "$shard" -le "$shards" ]; do
  one "$shard" "$@" >"$folder/$shard.out" 2>&1 &
  shard=$((shard + 1))
done
wait
exec "$MIGRATE" status --journals "$folder"

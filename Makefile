# Each target calls one binary or `cargo xtask`. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help drill test tidy bench-prober lab-up lab-down lab-reset lab-status pg-failover \
	redis-sentinel minio-resilience minio-migrate-verify pgbouncer-load bench-load

help: ## This list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

drill: ## Brings the lab up, runs every check against it, and sums up.
	cargo xtask drill

test: ## Every test, those against the real lab first.
	cargo xtask test

tidy: ## The rules that clippy cannot say.
	cargo xtask tidy

bench-prober: ## The prober and a poll loop against outages of known length; 8 minutes on loopback.
	cargo xtask bench prober

bench-load: ## pgbouncer-load against pgbench by itself, through the lab's pooler; 11 minutes.
	cargo xtask bench load

lab-up: ## Makes or mends the lab: real servers in Incus containers on this host.
	cargo xtask lab up

lab-down: ## Removes every object of the lab; keeps the cache.
	cargo xtask lab down

lab-reset: ## Takes the lab back to the snapshot of its healthy state.
	cargo xtask lab reset

lab-status: ## A table of the lab's instances, with their health.
	cargo xtask lab status

pg-failover: ## Fails over the formation that the environment names; ARGS="--dry-run" shows the plan.
	cargo run --quiet --package pg-failover-check -- $(ARGS)

redis-sentinel: ## Fails over the Redis group that the environment names; ARGS="--dry-run" shows the plan.
	cargo run --quiet --package redis-sentinel-check -- $(ARGS)

minio-resilience: ## Takes nodes of the MinIO cluster away that the environment names; ARGS="--dry-run" shows the plan.
	cargo run --quiet --package minio-resilience -- $(ARGS)

minio-migrate-verify: ## Compares the two stores that the environment names; ARGS="--bucket NAME" picks one bucket.
	cargo run --quiet --package minio-migrate -- verify $(ARGS)

pgbouncer-load: ## Loads the pooler that the environment names; ARGS="--dry-run" shows the plan.
	cargo run --quiet --package pgbouncer-load -- $(ARGS)

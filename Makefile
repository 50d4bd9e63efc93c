# Everything is done by `cargo xtask`; these are the names that people and CI know.
.PHONY: up down test check bench build

up:
	cargo xtask up

down:
	cargo xtask down

test:
	cargo xtask test

check:
	cargo xtask check

bench:
	cargo xtask bench

build:
	cargo xtask build --release

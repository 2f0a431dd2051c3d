# AccessOS. `make help` lists what there is.
SHELL := /bin/sh
MODULES := proto libs services tools deploy
GO ?= go
BIN := bin
GO_WANTED := 1.26
# Without tables for debuggers a program is a third smaller, and each process reads all of it to say which release it is. Stack traces
# and profiles name functions all the same.
AS_RELEASED := -trimpath -ldflags='-s -w'

.DEFAULT_GOAL := help
.PHONY: help up down clean build test test-of-planes test-of-packages test-short test-previous attack faults mutate aws-acceptance fuzz lint gen bench check-go pinned-tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: build ## build, start a plane with two tenants, discover real systems, print the answer
	@$(BIN)/fleet plane up

down: ## stop every process that make up started, and keep the data
	@if [ -x $(BIN)/fleet ]; then $(BIN)/fleet plane down; else echo "already down: nothing was built"; fi

clean: ## stop everything and remove the plane's data and what was built
	@if [ -x $(BIN)/fleet ]; then $(BIN)/fleet plane down --remove-data; \
	elif [ -d "$${A3_HOME:-.a3}" ]; then $(MAKE) --no-print-directory $(BIN)/fleet && $(BIN)/fleet plane down --remove-data; fi
	@rm -rf $(BIN)

build: check-go ## build accessos, fleet and a3 into bin/
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 $(GO) build $(AS_RELEASED) -o $(BIN)/ ./services/accessos ./tools/fleet ./tools/a3

$(BIN)/fleet: check-go
	@mkdir -p $(BIN)
	@$(GO) build $(AS_RELEASED) -o $(BIN)/ ./tools/fleet

check-go:
	@command -v $(GO) >/dev/null || { echo "Go is not installed: install Go $(GO_WANTED) or newer, see https://go.dev/dl" >&2; exit 1; }
	@v=$$($(GO) env GOVERSION | sed 's/^go//; s/[^0-9.].*//'); \
	lowest=$$(printf '%s\n%s\n' "$(GO_WANTED)" "$$v" | sort -t. -k1,1n -k2,2n | head -n 1); \
	[ "$$lowest" = "$(GO_WANTED)" ] || { echo "this is Go $$v and $(GO_WANTED) is the oldest that works: install a newer one, see https://go.dev/dl" >&2; exit 1; }

# What runs the tests of packages: CI has one that ends with what was skipped, and why.
GOTEST ?= $(GO) test

test: check-go ## run every test, on real parts that the tests start themselves
	@$(GO) run ./libs/pgtest/with-postgres $(MAKE) --no-print-directory -k -j2 test-of-planes test-of-packages

# The tests of whole planes wait more than they compute: the others run beside them.
test-of-planes:
	@cd tools && $(GOTEST) -timeout 40m ./systemtest

test-of-packages:
	@failed=; for m in $(MODULES); do \
	  (cd $$m && $(GOTEST) -timeout 30m $$($(GO) list ./... | grep -v '/tools/systemtest$$')) || failed="$$failed $$m"; done; \
	  [ -z "$$failed" ] || { echo "tests failed in:$$failed" >&2; exit 1; }

test-short: check-go ## run the tests that take no time
	@$(GO) run ./libs/pgtest/with-postgres sh -ec 'for m in $(MODULES); do (cd $$m && $(GO) test -short ./...); done'

test-previous: check-go ## run the previous release's own tests on the schema that today's migrations make (A3_PREVIOUS: which; SERVICES: of which)
	@bash .ci/test-previous $(SERVICES)

attack: check-go ## try what attackers try, and print row by row what was refused (A3_PLAY='--only T1,T2 --json FILE')
	@$(GO) run ./libs/pgtest/with-postgres $(GO) run ./tools/systemtest/play attacks $(A3_PLAY)

faults: check-go ## break what breaks, and print row by row what held (A3_PLAY as above)
	@$(GO) run ./libs/pgtest/with-postgres $(GO) run ./tools/systemtest/play faults $(A3_PLAY)

aws-acceptance: check-go ## prove in your own account of AWS what no emulator shows; asks before it makes anything (ACCEPTANCE='--region … …')
	@$(GO) run ./tools/fleet aws acceptance $(ACCEPTANCE)

mutate: check-go ## take checks out of a copy, one at a time, and see which test notices (long; A3_MUTATE='--only REGEXP')
	@$(GO) run ./libs/pgtest/with-postgres $(GO) run ./tools/systemtest/mutate $(A3_MUTATE)

TOOLS := $(CURDIR)/.cache/bin

# The pinned tools stand in a module outside of go.work. They are built anew when their versions change, and not when a clone gives
# their files a new time.
TOOLS_BUILT := $(TOOLS)/.built-$(shell cat devtools/go.mod devtools/go.sum | cksum | tr ' ' -)

$(TOOLS_BUILT):
	@echo "building the pinned tools (buf, sqlc, golangci-lint, …) into .cache/bin" >&2
	@mkdir -p $(TOOLS) && rm -f $(TOOLS)/.built-*
	@cd devtools && GOWORK=off GOBIN=$(TOOLS) $(GO) install tool
	@touch $@

pinned-tools: check-go $(TOOLS_BUILT)

fuzz: check-go ## fuzz every decoder (A3_FUZZTIME: how long each, 1m unless it says; FUZZ: a pattern of names)
	@bash .ci/fuzz $(FUZZ)

lint: check-go $(TOOLS_BUILT) ## check the code's form, the promises of the APIs and the arrows between modules
	@bad=$$(gofmt -l $(MODULES)); [ -z "$$bad" ] || { echo "not as gofmt writes it:" $$bad >&2; exit 1; }
	@PATH="$(TOOLS):$$PATH" buf lint
	@$(GO) run ./tools/bufcheck
	@cd devtools && GOWORK=off $(GO) mod tidy -diff
	@for m in $(MODULES); do echo "lint $$m" && ( cd $$m \
	  && GOWORK=off $(GO) mod tidy -diff && GOWORK=off $(GO) build ./... && $(GO) vet ./... \
	  && $(TOOLS)/golangci-lint run --allow-serial-runners --config $(CURDIR)/.golangci.yml ./... ) || exit 1; done

gen: check-go $(TOOLS_BUILT) ## make generated code anew
	@PATH="$(TOOLS):$$PATH" buf generate
	@$(TOOLS)/sqlc generate

bench: build ## measure, each figure beside what it is compared with (A3_BENCH_OUT: file for the JSON)
	@$(GO) run ./tools/bench

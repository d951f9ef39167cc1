# make lab    the whole cluster on real IPVS, from nothing, narrated
# make test   unit tests with the race detector, then the kernel tests and scenarios inside the lab
# make soak   the simulation of the pair, millions of scenarios
# make bench-failover   what a client sees of failovers, beside keepalived
# make lint   gofmt, go vet, staticcheck
# make build  bin/lvs-director, bin/lvs-agent, bin/lab
#
# Everything they need beside Go is installed by them, with apt-get, as root or through sudo.

GO          ?= go
SUDO        := $(if $(filter 0,$(shell id -u)),,sudo)
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD       := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
KERNEL_DIRS  = $(sort $(dir $(shell find . -name '*_kernel_test.go' -not -path './bin/*')))

.PHONY: build lab test unit kernel soak bench-failover lint install clean

build:
	$(BUILD) -o bin/ ./cmd/lvs-director ./cmd/lvs-agent ./deploy/lab

# A first run on a fresh host installs the lab's programs and, for the race detector, a C compiler.
install: build
	$(SUDO) bin/lab install

lab: install
	$(SUDO) bin/lab tour

test: install unit kernel

unit:
	@command -v gcc >/dev/null || $(SUDO) apt-get install -y -q --no-install-recommends gcc libc6-dev
	CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...
	CGO_ENABLED=0 $(GO) test -run '^TestSimulation' -v ./director/election

# Two million faulty days in the life of a pair; replay one with -sim.seed.
soak:
	CGO_ENABLED=0 LVSTUN_SCENARIOS=2000000 $(GO) test -timeout 2h -run '^TestSimulation' -v ./director/election

# Each package's kernel tests become one binary; the guest boots once for all of them and for the scenarios.
kernel: install
	rm -rf bin/kernel-tests && mkdir -p bin/kernel-tests
	set -e; for d in $(KERNEL_DIRS); do \
		CGO_ENABLED=0 $(GO) test -c -tags kernel -o bin/kernel-tests/$$(echo $$d | sed 's|^\./||; s|/$$||; s|/|-|g').test $$d; \
	done
	$(SUDO) bin/lab test

# The pair beside keepalived, in one topology and one run; the table, the JSON and the chart are in bin/lab.out/failover.
bench-failover: install
	$(BUILD) -o bin/ ./deploy/bench
	@[ -x /usr/sbin/keepalived ] || $(SUDO) apt-get install -y -q --no-install-recommends keepalived
	$(SUDO) bin/lab run deploy/bench/failover.sh

lint:
	@files=$$(gofmt -l cmd director agent tunnel sysctl httpcheck deploy); [ -z "$$files" ] || { echo "gofmt these files:"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags kernel ./...
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags kernel ./...

clean:
	rm -rf bin

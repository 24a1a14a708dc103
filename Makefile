# GhostBridge. The two targets to begin with: run, test.
#
#   make run [SECONDS=20]   the whole pipeline on this machine's own events
#   make test               everything that can run here; names what it skipped
#   make check              what is to hold of the code and of a release: see there
#   make bench              side by side with what a user would take instead
#   make bench-compare      the same, and whether a ratio is worse than in docs/bench/reference.json
#   make torture            the long forms of the tests
#   make screenshots        the README's pictures: of gb-web, and of a terminal
#   make fresh-test         run and test, as a stranger types them, in a bare Debian
#   make e2e                a container boots with the Debian package in it (long form)
#   make e2e-vm             a virtual machine does, whose kernel has Open vSwitch
#   make units              units/ anew from nix/units.nix
#   make install            PREFIX=/usr/local DESTDIR=
#   make deb                the Debian package, in dist/
#   make soak MINUTES=20    the pipeline under kills, full disks and a clock that is stepped
#   make demo               a story in a minute: an agent breaks a bridge, and is found out

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

PREFIX  ?= /usr/local
DESTDIR ?=
SECONDS ?= 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

TOOLS    := $(notdir $(patsubst %/,%,$(wildcard cmd/*/)))
BINARIES := $(addprefix bin/,$(TOOLS))
GO       ?= go
# Without the library's own man pages and the Markdown parser that they need.
TAGS     := urfave_cli_no_docs
LDFLAGS  := -s -w -X github.com/ghostbridge/ghostbridge/pkg/cli.version=$(VERSION)

# What building and make run need, and what the tests need beside, as Debian
# packages. Go itself is expected.
PACKAGES      := gcc libc6-dev linux-libc-dev make git ca-certificates btrfs-progs mount util-linux
TEST_PACKAGES := e2fsprogs acl attr strace findutils coreutils jq \
                 systemd nix-bin mmdebstrap dpkg prometheus \
                 openvswitch-switch iproute2 ethtool iputils-ping nftables tcpdump udhcpc \
                 qemu-system-x86 ipxe-qemu libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients lxc \
                 systemd-container dbus dnsmasq-base \
                 libsystemd-dev dbus-tests libglib2.0-bin python3-dbus python3-dbusmock python3-gi \
                 chromium fonts-dejavu-core bash-completion zsh fish man-db groff-base mandoc
# Only some distributions have these; the tests that use them are left out else.
OPTIONAL_PACKAGES := dfuzzer

.PHONY: all build node-deps test check quickcheck screenshots bench bench-search e2e e2e-vm fresh-test torture vulnerabilities reproducible race fuzz run install deb deps test-deps test-packages man units vectors clean fmt

all: build

build: deps $(BINARIES)

# The Go tool knows what is up to date.
.PHONY: $(BINARIES)
$(BINARIES): bin/%:
	@mkdir -p bin
	$(GO) build -trimpath -buildvcs=false -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

# A boot waits for it: static, it starts a third sooner.
bin/gb-ovs-setup: export CGO_ENABLED = 0

# The programs behind make run, make soak and make demo.
PROGRAMS := bin/run bin/soak bin/demo
.PHONY: $(PROGRAMS)
$(PROGRAMS): bin/%:
	@mkdir -p bin
	@$(GO) build -trimpath -buildvcs=false -o $@ ./integration/$*

# deps installs the packages that are missing, where apt-get can, and names
# them where it can't; test-deps also those of the tests. Both say nothing when
# all are there.
DEMO_PACKAGES := openvswitch-switch iproute2 ethtool iputils-ping dbus polkitd
test-packages: WANTED := $(PACKAGES) $(TEST_PACKAGES) $(DEMO_PACKAGES)
test-packages: OPTIONAL = $(OPTIONAL_PACKAGES)
deps: WANTED := $(PACKAGES)
soak-packages: WANTED := $(PACKAGES) e2fsprogs
demo-packages: WANTED := $(PACKAGES) $(DEMO_PACKAGES)
.PHONY: soak-packages demo-packages
deps test-packages soak-packages demo-packages:
	@missing=; \
	if command -v dpkg-query >/dev/null; then \
	  for p in $(WANTED); do \
	    dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	  done; \
	fi; \
	for p in $(OPTIONAL); do \
	  command -v apt-cache >/dev/null && apt-cache show $$p >/dev/null 2>&1 && ! dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q 'ok installed' && missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "installing:$$missing"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $$missing >/dev/null; \
	  else \
	    echo "missing packages:$$missing" >&2; \
	    echo "hint: install them as root: apt-get install$$missing" >&2; \
	  fi; \
	fi; \
	command -v $(GO) >/dev/null || { echo "go is missing: see https://go.dev/doc/install" >&2; exit 1; }

# What the tests take from npm: the clients and the conformance suite of MCP, with
# Node 22 to run them, which is an npm package too; and the driver of Chromium.
# The package-lock.json of each has their hashes.
NODE_DIRS := integration/mcp/testdata/node integration/web/browser
test-deps: node-deps
node-deps: test-packages
	@if ! command -v npm >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing: npm"; \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends npm >/dev/null; \
	fi; \
	if ! command -v npm >/dev/null; then \
	  echo "missing: npm, for the tests with MCP clients and with a browser" >&2; exit 0; \
	fi; \
	for d in $(NODE_DIRS); do \
	  if [ ! $$d/node_modules/.package-lock.json -nt $$d/package-lock.json ]; then \
	    echo "installing: npm packages ($$d)"; \
	    (cd $$d && npm ci --loglevel=error --no-progress --ignore-scripts >/dev/null && touch node_modules/.package-lock.json); \
	  fi; \
	done

# The README's pictures: a session of the tools, and gb-web.
screenshots: test-deps build
	@mkdir -p docs/screenshots
	$(GO) run ./integration/terminal docs/terminal.md terminal > docs/screenshots/terminal.svg
	GB_BIN=$(CURDIR)/bin GB_SCREENSHOTS=$(CURDIR)/docs/screenshots $(GO) test -count=1 ./integration/web -run TestBrowser
	@if command -v pngquant >/dev/null; then pngquant --force --ext .png --quality 70-95 docs/screenshots/*.png; else echo "hint: with pngquant they are a third of the size"; fi

test: test-deps build $(PROGRAMS) quickcheck
	GB_BIN=$(CURDIR)/bin $(GO) run ./integration/testreport -- -timeout 30m -race ./pkg/... -- -timeout 30m ./pkg/vecsync ./pkg/chain ./cmd/... ./integration/... \
	  -- -C integration/chain/peers ./...

quickcheck:
	@unformatted=$$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0r gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags conformance ./pkg/mcp
	$(GO) tool staticcheck ./...
	$(GO) vet -C integration/chain/peers ./...
	$(GO) vet -C integration/bench/peers ./...

# What make test does not need to ask each time, and what else a release must be
# able to say. It takes some fifteen minutes on two cores.
check: test-packages build quickcheck
	$(GO) mod tidy -diff
	$(GO) mod verify
	$(GO) test -v ./integration -run 'TestLayering|TestDuplicates'
	$(GO) test ./cmd/... -run 'TestManPage'
	$(GO) test ./integration/units -run 'TestUnitsAreRendered'
	$(GO) test ./integration/nix -run 'TestParse|TestVendorHash'
	GB_BIN=$(CURDIR)/bin $(GO) test ./integration/completion ./integration/supply
	$(GO) run ./integration/supply licences bin
	$(GO) run ./integration/supply sizes bin
	$(MAKE) vulnerabilities
	$(MAKE) reproducible
	$(MAKE) race
	$(MAKE) fuzz FUZZTIME=3s

# Known vulnerabilities in what the programs call. The program and its database
# come from the network; where that does not have them, it says so.
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
vulnerabilities:
	@mkdir -p .cache/bin; \
	if ! GOBIN='$(CURDIR)/.cache/bin' timeout 300 $(GO) install $(GOVULNCHECK); then \
	  echo "vulnerabilities: not checked: $(GOVULNCHECK) can't be had" >&2; exit 0; \
	fi; \
	code=0; timeout 300 .cache/bin/govulncheck ./cmd/... || code=$$?; \
	case $$code in \
	0) ;; \
	3) exit 1 ;; \
	*) echo "vulnerabilities: not checked: govulncheck ended with $$code, for want of its database as it seems" >&2 ;; \
	esac

# A second build, of a copy elsewhere and with nothing in its cache, gives the
# same bytes; so does a second package.
reproducible: build
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; tree="$$dir/elsewhere/a copy"; mkdir -p "$$tree"; \
	git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - 2>/dev/null | tar -C "$$tree" -xf -; \
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	$(MAKE) deb DIST="$$dir/here" VERSION='$(VERSION)' >/dev/null; \
	export GOCACHE="$$dir/cache"; \
	$(MAKE) -C "$$tree" deb DIST="$$dir/there" VERSION='$(VERSION)' >/dev/null; \
	for t in $(TOOLS); do cmp "bin/$$t" "$$tree/bin/$$t"; sha256sum "bin/$$t"; done; \
	cd "$$dir/here"; for p in *.deb; do cmp "$$p" "../there/$$p"; sha256sum "$$p"; done

# With the race detector, and how much of each package its own tests run.
race:
	$(GO) test -timeout 30m -race -cover ./pkg/... ./cmd/...

# Each fuzz target for a few seconds.
FUZZTIME ?= 10s
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$pkg; \
	  done; \
	done

# The host and its pipeline in a booted container, in their long form: half an
# hour. GB_E2E_FROM names the commit whose package is upgraded.
e2e: test-deps build
	GB_REQUIRE=all GB_TORTURE=1 GB_BIN=$(CURDIR)/bin $(GO) test -count=1 -v -timeout 1h ./integration/e2e

# In a tree with nothing but git, make, gcc and Go; what can't run there is
# skipped and named. It takes about half an hour.
fresh-test: test-packages
	$(GO) run ./integration/fresh

# The host in QEMU, with the kernel's own Open vSwitch: set up, rebooted, its
# switch killed, and booted without a switch, a network card, room on its disk.
# On KVM where that runs it, else emulated, which takes a quarter of an hour;
# GB_VM=tcg or kvm says which.
e2e-vm: export GB_VM ?= 1
e2e-vm: test-deps build
	GB_REQUIRE=all GB_BIN=$(CURDIR)/bin $(GO) test -count=1 -v -timeout 2h -run TestVirtualMachine ./integration/e2e

torture: test-deps build $(PROGRAMS)
	GB_TORTURE=1 GB_BIN=$(CURDIR)/bin $(GO) run ./integration/testreport -- -timeout 12h ./...

# It takes a quarter of an hour. For one comparison: BENCH='-run append/btrfs';
# to see that all runs: BENCH=-quick; all samples: BENCH='-json FILE'.
BENCH ?=
bench: test-deps build
	$(GO) run ./integration/bench -bin bin $(BENCH)

# The run that is kept, and what is shown of it; on a machine that does nothing
# else.
REFERENCE := docs/bench/reference.json
.PHONY: bench-reference bench-render bench-compare
bench-reference: test-deps build
	$(GO) run ./integration/bench -bin bin -json $(REFERENCE)
	@$(MAKE) bench-render

# The Markdown and the plots of the run that is kept.
bench-render:
	$(GO) run ./integration/bench render $(REFERENCE)

# Compares ratios with those of the run that is kept: those of RUN, a file that
# -json wrote, or of a run now, which BENCH may narrow.
RUN ?=
bench-compare: $(if $(RUN),,test-deps build)
ifeq ($(RUN),)
	@mkdir -p bin
	$(GO) run ./integration/bench -bin bin $(BENCH) -json bin/bench.json
endif
	$(GO) run ./integration/bench compare $(REFERENCE) $(or $(RUN),bin/bench.json)

# How well questions are answered, beside BM25 alone, bleve and grep.
bench-search:
	@mkdir -p bin
	$(GO) build -C integration/bench/peers -o $(CURDIR)/bin/bleveask ./bleveask
	for f in questions heldout fresh; do $(GO) run ./integration/bench/search -bleve bin/bleveask -questions $$f.txt; done

# The word vectors that the search has built in, from the manual pages of Debian packages (apt-get download).
vectors:
	$(GO) run ./integration/vectors

# The whole pipeline at RATE events a second while its processes are killed, its
# disks run full, Qdrant goes away and the clock is stepped: HOURS, MINUTES or
# SECONDS. SEED repeats a run's faults. GB_QDRANT=HOST:PORT takes a real Qdrant.
HOURS   ?= 0
MINUTES ?= 0
SEED    ?= 0
RATE    ?= 1000
.PHONY: soak demo
soak: soak-packages build bin/soak
	@exec bin/soak --bin bin --dir var/soak --hours $(HOURS) --minutes $(MINUTES) --seconds $(SECONDS) --seed $(SEED) --rate $(RATE)

# An AI agent asks to change a bridge, is refused, is approved, changes it, breaks
# it and is rolled back, all on real parts in namespaces of their own; then who
# asks "who touched the bridge" finds all of it. As root.
demo: demo-packages build bin/demo
	@exec bin/demo --bin bin --units units

run: build bin/run
	@exec bin/run --bin bin --dir var --seconds $(SECONDS)

# The unit files come from nix/units.nix; Debian's nix evaluates it.
units: deps
	$(GO) test ./integration/units -run TestUnitsAreRendered -count=1 -update

# man pages and completions come from the tools themselves.
man: build
	$(GO) test ./cmd/... -run 'TestManPage' -update

# Configuration that is there already is left as it is.
SYSCONFDIR ?= /etc
UNITS      := $(wildcard units/*.service units/*.socket units/*.timer units/*.path)

# BIN=DIR takes the binaries of a directory as they are.
BIN ?= bin
install deb: $(if $(filter bin,$(BIN)),build)

install:
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/man/man1' \
	  '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
	  '$(DESTDIR)$(PREFIX)/share/zsh/site-functions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d' \
	  '$(DESTDIR)$(PREFIX)/lib/systemd/system' '$(DESTDIR)$(PREFIX)/lib/sysusers.d' '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d' \
	  '$(DESTDIR)$(SYSCONFDIR)/default' '$(DESTDIR)$(SYSCONFDIR)/ghostbridge'
	for t in $(TOOLS); do \
	  install -m 755 $(BIN)/$$t '$(DESTDIR)$(PREFIX)/bin/'; \
	  install -m 644 man/$$t.1 '$(DESTDIR)$(PREFIX)/share/man/man1/'; \
	  $(BIN)/$$t completion bash > '$(DESTDIR)$(PREFIX)'/share/bash-completion/completions/$$t; \
	  $(BIN)/$$t completion zsh > '$(DESTDIR)$(PREFIX)'/share/zsh/site-functions/_$$t; \
	  $(BIN)/$$t completion fish > '$(DESTDIR)$(PREFIX)'/share/fish/vendor_completions.d/$$t.fish; \
	done
	for u in $(UNITS); do \
	  sed -E 's,=/usr/bin/($(subst $(eval ) ,|,$(TOOLS))) ,=$(PREFIX)/bin/\1 ,' $$u > '$(DESTDIR)$(PREFIX)'/lib/systemd/system/$${u#units/}; \
	done
	grep -v '^#' units/aliases | while read -r name target; do \
	  [ -e "/usr/lib/systemd/system/$$name" ] && [ -z '$(DESTDIR)' ] || ln -sfn $$target '$(DESTDIR)$(PREFIX)'/lib/systemd/system/$$name; \
	done
	for f in dbus-1/system.d/org.freedesktop.opdbus.conf dbus-1/system-services/org.freedesktop.opdbus.service polkit-1/actions/org.freedesktop.opdbus.policy; do \
	  install -D -m 644 units/$$f '$(DESTDIR)$(PREFIX)/share/'$$f; \
	done
	install -D -m 644 packaging/policy.json '$(DESTDIR)$(PREFIX)/share/doc/ghostbridge/policy.example.json'
	install -D -m 644 packaging/state.json '$(DESTDIR)$(PREFIX)/share/doc/ghostbridge/state.example.json'
	$(GO) run ./integration/supply sbom '$(BIN)' '$(VERSION)' > '$(DESTDIR)$(PREFIX)/share/doc/ghostbridge/sbom.cdx.json'
	$(GO) run ./integration/supply notices '$(BIN)' > '$(DESTDIR)$(PREFIX)/share/doc/ghostbridge/third-party-licences.txt'
	install -m 644 units/sysusers.d/ghostbridge.conf '$(DESTDIR)$(PREFIX)/lib/sysusers.d/'
	install -m 644 units/tmpfiles.d/ghostbridge.conf '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/'
	ln -sfn opdbus '$(DESTDIR)$(PREFIX)/bin/op-dbus'
	ln -sfn opdbus '$(DESTDIR)$(PREFIX)/bin/dbus-mcp'
	ln -sfn gb-web '$(DESTDIR)$(PREFIX)/bin/dbus-mcp-web'
	install -d '$(DESTDIR)$(PREFIX)/share/ghostbridge'
	for d in monitoring libvirt; do \
	  (cd packaging && find $$d -type f ! -name '*_test.yml') | while read -r f; do install -D -m 644 packaging/$$f '$(DESTDIR)$(PREFIX)/share/ghostbridge/'$$f; done; \
	done
	(cd units && find *.d -name 'ghostbridge-*.conf') | while read -r f; do install -D -m 644 units/$$f '$(DESTDIR)$(PREFIX)/lib/systemd/system/'$$f; done
	(cd units && find drop-ins -type f) | while read -r f; do install -D -m 644 units/$$f '$(DESTDIR)$(PREFIX)/share/ghostbridge/'$$f; done
	install -m 644 pkg/ovs/ovs.schema.json pkg/hoststate/state.schema.json '$(DESTDIR)$(PREFIX)/share/ghostbridge/'
	keep() { [ -e "$$3" ] || install -m "$$1" "$$2" "$$3"; }; \
	keep 644 packaging/default '$(DESTDIR)$(SYSCONFDIR)/default/ghostbridge'; \
	keep 644 packaging/writers.json '$(DESTDIR)$(SYSCONFDIR)/ghostbridge/writers.json'; \
	keep 755 packaging/ovs-status.sh '$(DESTDIR)$(SYSCONFDIR)/ghostbridge/ovs-status.sh'; \
	keep 755 packaging/query-blockchain.sh '$(DESTDIR)$(SYSCONFDIR)/ghostbridge/query-blockchain.sh'; \
	keep 644 packaging/novnc-displays '$(DESTDIR)$(SYSCONFDIR)/ghostbridge/novnc'; \
	keep 755 packaging/test-dbus.sh '$(DESTDIR)$(SYSCONFDIR)/ghostbridge/test-dbus.sh'

# The Debian package, in dist/.
DIST ?= dist
deb:
	@stage=$$(mktemp -d); trap 'rm -rf "$$stage"' EXIT; chmod 755 "$$stage"; \
	export SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}; \
	$(MAKE) install PREFIX=/usr DESTDIR="$$stage" BIN='$(BIN)' >/dev/null; \
	packaging/debian/build "$$stage" '$(VERSION)' '$(DIST)'

fmt:
	gofmt -w $$(git ls-files '*.go')

clean:
	rm -rf bin dist

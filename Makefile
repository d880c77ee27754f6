# SPDX-License-Identifier: GPL-2.0
#
# make run		boot Debian's own kernel, with its modules and with the series', measure, and
#			print the table
# make matrix		the same of all kernels, built here for debugging
# make test		everything that says whether the series is right: all of it on the
#			newest kernel, and static checks of the others unless BASE is given;
#			BASE=all: all of it on all
# make bench		what mapping a BAR costs: stock, patched, and the IOMMU alone, in
#			instructions; writes docs/bench/BASE, in half an hour or so
# make compose		a git tree with a commit a patch, to build and to edit
# make writeback	the edited commits back to series/ and linux/
# make compare		git range-diff of the patches for the kernel WITH and for BASE; SET= of one set
# make port		the fixup commits in build/FROM/tree, to build/BASE/tree
# make series		the whole series as one folder for git am
# make mail		a set of it for git send-email, with a cover letter and addresses, and
#			the name and sign-off that git config has
# make report		a bug that BASE=6.1 alone has, shown by a program, as a mail to stable@
# make bisect		each patch built in odd configurations too, booted and measured, in an
#			hour or two
# make proof		each test seen failing: writes docs/proof/BASE.md, in some hours
# make clean		remove what was made in build/, but no edits
# make distclean	remove the cache as well, which all checkouts share
#
# And what those are made of:
# make deps		install, as root, what make test needs; else say what is missing
# make fetch		the source of the kernel
# make stock patched	one of the kernels
# make selftests	the test programs, and the modules that they bring along
# make build		all three
# make check		the static checks of the series
# make spin		the models
# make help		this text
#
# BASE=7.3		which kernel: a folder in series/; the newest one if not given
# DEBUG=1		make run: build stock and patched here, with KASAN, lockdep and debugfs
# KERNEL_SRC=PATH	a tree or tarball of it instead of Debian's
# CACHE=PATH		where sources and compiled objects are kept
# BUILD=PATH		where the rest is built, instead of build/
# JOBS=2		how many processes at a time
# ONLY="WORD..."	make test: only these stages, tests or groups of lab/tests.list;
#			make proof: only these reverts, or stock, or patched
# WITH=6.12 FROM=7.3	make compare, make port: the other kernel
# SET=core		make mail: which set of series/BASE/order
# V=2			make mail: which version of it this is
# FORCE=1		make compose, writeback, series, mail, clean, distclean: drop edits
# REFRESH=1		look for a newer package of the source
# BOOT=1		make bisect: no odd configurations
# RESUME=1		make proof: keep the results that there are of this code;
#			make bench: those of an earlier run
# RUNS=2		make bench: how often to measure everything
# LARGE=256G		make bench: the size of the BAR, a power of two
# FLAVOR=release	make stock, patched, selftests: without the debug machinery

bases := $(shell cd series && echo */base.conf | tr ' ' '\n' | sed 's,/.*,,' | sort -V)
given := $(BASE)
BASE ?= $(lastword $(bases))
variables := DEBUG KERNEL_SRC CACHE BUILD ONLY FORCE REFRESH RESUME RUNS LARGE FLAVOR JOBS V SET BOOT
export $(variables)

# An empty variable is one that is not set.
unexport $(foreach v,$(variables),$(if $($v),,$v))

ifneq ($(given),$(filter all $(bases),$(given)))
$(error unknown BASE '$(given)'; this project has: $(bases))
endif

targets := help run matrix bench test deps fetch compose writeback compare port series mail report stock patched \
	build selftests check spin proof bisect clean distclean
.PHONY: $(targets)
.NOTPARALLEL:

help:
	@awk 'NR > 2 { if (!/^#/) exit; sub(/^# ?/, ""); print }' Makefile

run:
	@lab/run.sh '$(BASE)'

matrix:
	@DEBUG=1 lab/run.sh $(if $(given),'$(given)',$(bases))

bench:
	@lab/bench.sh '$(BASE)'

test:
	@lab/test.sh '$(given)'

deps:
	@lab/deps.sh test

fetch:
	@lab/fetch.sh '$(BASE)'

compose:
	@lab/compose.sh '$(BASE)'

writeback:
	@lab/writeback.sh '$(BASE)'

compare:
	@lab/compare.sh '$(BASE)' '$(WITH)'

port:
	@lab/port.sh '$(FROM)' '$(BASE)'

series:
	@lab/series.sh '$(BASE)'

mail:
	@lab/mail.sh '$(BASE)'

report:
	@lab/report.sh '$(BASE)'

stock patched:
	@lab/build.sh '$(BASE)' $@

build: stock patched selftests

selftests:
	@lab/selftests.sh '$(BASE)'

check:
	@lab/check.sh '$(BASE)'

spin:
	@lab/spin.sh

proof:
	@lab/proof.sh '$(BASE)'

bisect:
	@lab/bisect.sh '$(BASE)'

clean:
	@lab/clean.sh

distclean:
	@lab/clean.sh all

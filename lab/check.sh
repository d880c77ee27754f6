#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Static checks of a series: checkpatch, a build of each patch on x86-64 and, for
# those that touch it, of the platform and fsl-mc drivers on arm64, sparse,
# coccicheck, kernel-doc, Sphinx; and shellcheck of this project's own scripts.  What
# the tools say about the base is not the series' business: only what is new fails.
#
# Usage: lab/check.sh BASE [TREE]
#	 TREE: a git tree with the series applied on top of the tag "base",
#	 instead of the one that lab/compose.sh makes
#	 CHECK="shellcheck guarantees checkpatch kernel-doc sphinx x86-64 arm64 selftests sparse
#	 coccicheck": which of them (default: all).  Only if named: builds of each patch
#	 with "few", nothing that can be left out, and vfio built in; "cdev", no groups;
#	 "nommu", RISC-V without MMU; "allmod", drivers/vfio of allmodconfig
#
# What passed is remembered in the cache, by all that it depends on: the contents that were
# checked, the version of the tools, what was asked of them, and how it is done here.
# FRESH=1 does not look there.

# Functions are called by way of progress, which shellcheck does not see:
# shellcheck disable=SC2317,SC2119,SC2120
# shellcheck source=lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load_base "${1:-}"

# Not for checkpatch: sign-offs are added when the series is mailed, by who mails
# it; MAINTAINERS is updated by a patch of its own; there is no history to look the
# commits up in that messages name.
CHECKPATCH_IGNORE=MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF,FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID

ALL="shellcheck guarantees checkpatch kernel-doc sphinx x86-64 arm64 selftests sparse coccicheck"
ODD="few cdev nommu allmod"
CHECK=${CHECK:-$ALL}
for name in $CHECK; do
	[[ " $ALL $ODD " == *" $name "* ]] || die "CHECK: unknown check '$name'; there are: $ALL $ODD"
done

passed=0 failed=0 count=0

# result STATUS DESCRIPTION [FILE]: FILE says why, if it failed
result()
{
	count=$((count + 1))
	if ((!$1)); then
		passed=$((passed + 1))
		echo "ok $count - $2"
	else
		failed=$((failed + 1))
		echo "not ok $count - $2"
		name=${2%%:*}
		echo "# again: CHECK=${name#build } lab/check.sh $BASE"
		if [[ -n ${3:-} ]]; then
			sed -n "s,${SRC:-/nowhere}/,,g; 1,40s/^/# /p" "$3"
		fi
	fi
}

wanted()
{
	[[ " $CHECK " == *" $1 "* ]]
}

need()
{
	local tool package missing=

	while read -r tool package; do
		[[ -z $tool ]] || command -v "$tool" >/dev/null || missing+=" $package"
	done
	[[ -z $missing ]] || die "tools are missing; run: apt-get install$missing"
}

need <<-END
	perl perl
	git git
	gcc gcc
	make make
	flex flex
	bison bison
	nm binutils
	$(wanted shellcheck && echo shellcheck shellcheck)
	$(wanted sphinx && echo sphinx-build python3-sphinx)
	$(wanted sparse && echo sparse sparse)
	$(wanted coccicheck && echo spatch coccinelle)
	$(wanted arm64 && echo aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu)
	$(wanted nommu && echo riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu)
END

#
# The project's own scripts
#
scripts()
{
	local file

	if git -C "$TOP" rev-parse --git-dir >/dev/null 2>&1; then
		git -C "$TOP" ls-files --cached --others --exclude-standard
	else
		(cd "$TOP" && find . -path ./build -prune -o -type f -print)
	fi | while read -r file; do
		[[ -f $TOP/$file ]] || continue
		if [[ $file == *.sh ]] ||
		   head -c 64 "$TOP/$file" | head -n 1 | tr -d '\0' | grep -Eq '^#!.*[/ ](ba|da)?sh( |$)'; then
			echo "$file"
		fi
	done | sort -u
}

echo "TAP version 13"

if wanted shellcheck; then
	mapfile -t files < <(scripts)
	status=0
	(cd "$TOP" && shellcheck -x -P SCRIPTDIR "${files[@]}") > "$LOGS/shellcheck.log" 2>&1 || status=1
	result "$status" "shellcheck: ${#files[@]} scripts" "$LOGS/shellcheck.log"
fi

if wanted guarantees; then
	status=0
	"$TOP/lab/check-guarantees.sh" > "$LOGS/guarantees.log" 2>&1 || status=1
	grep -v '^ok' "$LOGS/guarantees.log" > "$LOGS/guarantees.why" || :
	result "$status" "guarantees: docs/guarantees.md is true of the tests" "$LOGS/guarantees.why"
fi

if ! tr -s ' ' '\n' <<< "$CHECK" | grep -vxEq 'shellcheck|guarantees|'; then
	echo "1..$count"
	echo "$passed passed, $failed failed, 0 skipped"
	exit $((failed > 0))
fi

#
# A clone of the composed tree to check patches out in.  Objects are kept from one
# patch to the next and from run to run, so that make compiles only what differs.
#
WORK=$OUT/check
lock "$OUT/lock-check"
need_space "$OUT" 3000 "checking"
PASSED=$CACHE/checks
mkdir -p "$WORK" "$PASSED"

if [[ -n ${2:-} ]]; then
	tree=$(absolute "$2")
else
	tree=$("$TOP/lab/compose.sh" "$BASE") || exit 1
	tree=$(tail -n 1 <<< "$tree")
fi
tip=$(git -C "$tree" rev-parse --verify -q HEAD) || die "$tree: not a git tree"
base=$(git -C "$tree" rev-parse --verify -q 'base^{commit}') || die "$tree has no tag 'base'"

# The objects are those of the tree; a clone of a tree that is gone is made anew.
SRC=$WORK/src
clone()
{
	local objects

	objects=$(git -C "$tree" rev-parse --path-format=absolute --git-path objects) || return 1
	if [[ $(cat "$SRC/.git/objects/info/alternates" 2>/dev/null) != "$objects" ]]; then
		rm -rf "$SRC" "$WORK"/obj-*
		git init -q "$SRC" || return 1
		git -C "$SRC" config gc.auto 0
		echo "$objects" > "$SRC/.git/objects/info/alternates"
	fi
	# An interrupted run may have left any of these.
	rm -f "$SRC"/.git/*.lock
	git -C "$SRC" checkout -q -f --detach "$base" || return 1
	git -C "$SRC" clean -qfdx
}
if [[ $CHECK == checkpatch ]]; then
	# Which looks at the tree as it is
	SRC=$tree
else
	progress "preparing the tree to check" "$LOGS/check-clone.log" clone ||
		die "cannot copy $tree: $(reason "$LOGS/check-clone.log")"
fi

mapfile -t commits < <(git -C "$SRC" rev-list --reverse "$base..$tip")
((${#commits[@]})) || die "$tree has no patch on top of its base"
mapfile -t changed < <(git -C "$SRC" diff --name-only --diff-filter=AM "$base" "$tip")

checkout()
{
	[[ $SRC != "$tree" ]] || return 0
	git -C "$SRC" checkout -q -f --detach "$1" || die "cannot check out $1"
}

title()
{
	git -C "$SRC" show -s --format=%s "$1"
}

number()
{
	printf '%04d' "$1"
}

#
# What passed once with the very same contents and tools need not run again.
#
TOOLS=$({
	gcc --version
	ld --version
	aarch64-linux-gnu-gcc --version 2>/dev/null || :
	riscv64-linux-gnu-gcc --version 2>/dev/null || :
	sparse --version 2>/dev/null || :
	spatch --version 2>/dev/null || :
	perl --version
	sphinx-build --version 2>/dev/null || :
} 2>&1 | sha256sum | cut -c 1-16)

# key FUNCTIONS WORD...: a file name for what depends on these functions, on what setup
# has set, on the words, and on nothing else
key()
{
	local functions=$1

	shift
	{
		echo "$TOOLS $*"
		echo "${only_here[*]} $between ${make_args[*]} $code $compiler $defaults $vfio ${symbols//[$' \t\n']/ } $required ${others[*]}"
		# shellcheck disable=SC2086	# words on purpose
		declare -f $functions
	} | sha256sum | cut -c 1-32
}
make_args=() others=() only_here=() between='' code='' compiler='' defaults='' vfio='' symbols='' required=''

seen()
{
	[[ -z ${FRESH:-} && -f $PASSED/$1 ]]
}

remember()
{
	: > "$PASSED/$1"
}

# A warning is the same warning after its line has moved.
normalize()
{
	sed -E 's/:[0-9]+(:[0-9]+)?:/:/; s/:[0-9]+(-[0-9]+)?: /: /g; s/\.([ch]):[0-9]+ /.\1: /; s/\(see line [0-9]+\)//;
		s/ on line [0-9]+/ on line/; s/line [0-9]+/line/g; s,^(\.\./)+,,' | LC_ALL=C sort
}

# added BASE_LOG LOG: lines of LOG that are not in BASE_LOG, as often as there
added()
{
	comm -13 <(normalize < "$1") <(normalize < "$2")
}

#
# checkpatch, as many at a time as there are processors
#
run_checkpatch()
{
	local n=$1 commit=$2 log=$LOGS/checkpatch-$1.log stamp

	stamp=$(key run_checkpatch "$CHECKPATCH_IGNORE" "$scripts" "$commit")
	rm -f "$log" "$log.ok"
	if seen "$stamp"; then
		: > "$log.ok"
		return
	fi
	git -C "$SRC" format-patch -1 --stdout "$commit" > "$WORK/patch-$n"
	(cd "$SRC" && HOME=$WORK PATH=$WORK/bin:$PATH ./scripts/checkpatch.pl --strict --no-summary --show-types \
		--ignore "$CHECKPATCH_IGNORE" "$WORK/patch-$n") > "$log" 2>&1 &&
		! grep -Eq '^(ERROR|WARNING|CHECK)' "$log" || return 0
	remember "$stamp"
	: > "$log.ok"
}

check_checkpatch()
{
	local n=0 commit status

	checkout "$tip"
	# spdxcheck.py asks for "python", and for modules of Debian's python3.
	mkdir -p "$WORK/bin"
	ln -sf /usr/bin/python3 "$WORK/bin/python"
	scripts=$(git -C "$SRC" ls-tree "$tip" scripts/ LICENSES MAINTAINERS | sha256sum)
	for commit in "${commits[@]}"; do
		while (($(jobs -pr | wc -l) >= JOBS)); do
			wait -n || :
		done
		n=$((n + 1))
		run_checkpatch "$(number "$n")" "$commit" &
	done
	wait
	n=0
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		status=1
		[[ ! -f $LOGS/checkpatch-$(number "$n").log.ok ]] || status=0
		result "$status" "checkpatch: $(number "$n") $(title "$commit")" "$LOGS/checkpatch-$(number "$n").log"
	done
}

if wanted checkpatch; then
	timed "static $BASE: checkpatch" check_checkpatch
fi

#
# kernel-doc
#
check_kernel_doc()
{
	local file which docs=() status=0

	: > "$WORK/doc.base"
	: > "$WORK/doc.tip"
	for file in "${changed[@]}"; do
		case $file in
		drivers/*.[ch]|include/*.h)
			docs+=("$file")
		esac
	done
	for which in base tip; do
		checkout "${!which}"
		for file in "${docs[@]}"; do
			[[ -f $SRC/$file ]] || continue
			(cd "$SRC" && ./scripts/kernel-doc -none "$file") >> "$WORK/doc.$which" 2>&1 || :
		done
	done
	added "$WORK/doc.base" "$WORK/doc.tip" > "$LOGS/kernel-doc.log"
	[[ ! -s $LOGS/kernel-doc.log ]] || status=1
	result "$status" "kernel-doc: ${#docs[@]} changed files, no new warning" "$LOGS/kernel-doc.log"
}

if wanted kernel-doc; then
	timed "static $BASE: kernel-doc" check_kernel_doc
fi

#
# Sphinx, of the pages that the series changes, and those with the kernel-doc of a file
# that it changes: with the kernel's own configuration, but page by page, in seconds.
# All of Documentation/driver-api takes minutes.  As no other page is read, a
# reference to one by :doc: or :ref: counts as broken; plain paths are fine.
#
pages()
{
	local file pattern=

	printf '%s\n' "${changed[@]}" | { grep '^Documentation/.*\.rst$' || :; }
	for file in "${changed[@]}"; do
		[[ $file != *.[ch] ]] || pattern+="${pattern:+|}${file//./\\.}"
	done
	[[ -z $pattern ]] ||
		git -C "$SRC" grep -lE "^\\.\\. kernel-doc:: +($pattern)\$" "$tip" -- 'Documentation/*.rst' |
			sed 's/^[^:]*://' || :
}

# run_sphinx PAGE...
run_sphinx()
{
	local page name word options

	# Older kernels call a program for kernel-doc, and are told which.
	options=(-D kerneldoc_srctree="$SRC")
	if grep -q '^kerneldoc_bin' "$SRC/Documentation/conf.py"; then
		options+=(-D kerneldoc_bin="$SRC/scripts/kernel-doc")
	fi
	for page; do
		[[ -f $SRC/$page ]] || continue
		name=$(basename "$page" .rst)
		rm -rf "$WORK/sphinx"
		(cd "$SRC" && LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 srctree=$SRC \
			BUILDDIR=$WORK/sphinx sphinx-build -q -b html -c Documentation \
			-d "$WORK/sphinx/doctrees" "${options[@]}" -D version=check -D release=check \
			-D root_doc="$name" -D include_patterns="$name.rst" \
			"$(dirname "$page")" "$WORK/sphinx/html") || return 1
		[[ -s $WORK/sphinx/html/$name.html ]] || {
			echo "error: $page was not built"
			return 1
		}
		# Nobody else notices a function that is not there any more.
		awk '/^   :(identifiers|functions):/ { names = 1; sub(/:[a-z]+:/, "") }
			names && !NF { names = 0 }
			names { for (i = 1; i <= NF; i++) print $i }' "$SRC/$page" |
		while read -r word; do
			grep -q "id=\"c\.$word\"" "$WORK/sphinx/html/$name.html" ||
				echo "$page: WARNING: no kernel-doc of $word"
		done
	done
}

check_sphinx()
{
	local which stamp log=$LOGS/sphinx.log status=0

	checkout "$tip"
	mapfile -t pages < <(pages | sort -u)
	stamp=$(key "pages run_sphinx added normalize" sphinx "${pages[*]}" \
		"$(git -C "$SRC" rev-parse "$base^{tree}")" "$(git -C "$SRC" rev-parse "$tip^{tree}")")
	if ! seen "$stamp"; then
		rm -f "$log"
		for which in base tip; do
			checkout "${!which}"
			progress "checks, sphinx: $which" "$WORK/sphinx.$which" run_sphinx "${pages[@]}" || {
				tail -n 20 "$WORK/sphinx.$which" > "$log"
				status=1
				break
			}
		done
		if ((!status)); then
			added "$WORK/sphinx.base" "$WORK/sphinx.tip" > "$log"
			[[ ! -s $log ]] || status=1
		fi
		((status)) || remember "$stamp"
	fi
	result "$status" "sphinx: ${#pages[@]} pages, no new warning" "$log"
}

if wanted sphinx; then
	timed "static $BASE: sphinx" check_sphinx
fi

#
# Builds
#
# setup ARCH: how make is called for it, and the config its builds have in common
setup()
{
	OBJ=$WORK/obj-$1
	make_args=(ARCH=x86_64)
	code=x86
	compiler=gcc
	defaults=tinyconfig
	vfio=m
	only_here=()
	between=
	case $1 in
	x86-64)
		symbols="64BIT SMP MODULES EVENTFD HIGH_RES_TIMERS PCI PCI_MSI ACPI EXPERT MMU_NOTIFIER IOMMU_SUPPORT INTEL_IOMMU
			AMD_IOMMU TRANSPARENT_HUGEPAGE MEMFD_CREATE SHMEM VFIO VFIO_PCI
			VFIO_PCI_VGA VFIO_PCI_IGD VFIO_NOIOMMU VFIO_MDEV PROC_FS SYSFS
			DEBUG_KERNEL PROVE_LOCKING $CHECK_X86_64"
		required="VFIO VFIO_PCI VFIO_PCI_IGD VFIO_MDEV VFIO_IOMMU_TYPE1 INTEL_IOMMU $CHECK_X86_64"
		;;
	arm64)
		make_args=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
		code=arm64
		compiler=aarch64-linux-gnu-gcc
		symbols="SMP MODULES EVENTFD PCI PCI_MSI EXPERT OF EFI ACPI ARCH_NXP ARCH_LAYERSCAPE IOMMU_SUPPORT ARM_SMMU_V3 ARM_AMBA
			ARCH_VEXPRESS FSL_MC_BUS VFIO VFIO_PCI VFIO_PLATFORM VFIO_AMBA VFIO_FSL_MC
			VFIO_PLATFORM_CALXEDAXGMAC_RESET VFIO_PLATFORM_AMDXGBE_RESET $CHECK_ARM64"
		only_here=(drivers/vfio/{platform,fsl-mc,cdx,pci/nvgrace-gpu,pci/hisilicon})
		required="VFIO VFIO_PLATFORM VFIO_AMBA VFIO_FSL_MC VFIO_IOMMU_TYPE1 ARM_SMMU_V3 $CHECK_ARM64"
		;;
	few)
		symbols="64BIT MODULES EVENTFD PCI PCI_MSI=n IOMMU_SUPPORT VFIO VFIO_PCI"
		required="VFIO VFIO_PCI VFIO_IOMMU_TYPE1"
		vfio=y
		;;
	cdev)
		symbols="64BIT MODULES EVENTFD PCI IOMMU_SUPPORT IOMMUFD VFIO VFIO_DEVICE_CDEV VFIO_GROUP=n VFIO_PCI"
		required="VFIO VFIO_DEVICE_CDEV VFIO_PCI"
		;;
	nommu)
		make_args=(ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu-)
		code=riscv
		compiler=riscv64-linux-gnu-gcc
		symbols="NONPORTABLE MMU=n 64BIT MODULES EVENTFD IOMMU_SUPPORT VFIO"
		required=VFIO
		;;
	allmod)
		defaults=allmodconfig
		symbols=
		required="VFIO VFIO_PCI VFIO_IOMMU_TYPE1"
		;;
	esac
	# What the series changes outside of drivers/vfio is built as well, but on RISC-V,
	# where it is for an MMU.
	others=()
	[[ $1 == nommu ]] ||
		mapfile -t others < <(printf '%s\n' "${changed[@]}" | sed -n "s,^\(\(arch/$code\|mm\)/.*\)\.c\$,\1.o,p")
	use_ccache
	if [[ $CC == ccache* ]]; then
		compiler="ccache $compiler"
	fi
}

kmake()
{
	make -j"$JOBS" -C "$SRC" O="$OBJ" "${make_args[@]}" CC="$compiler" LOCALVERSION= \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "$@"
}

# configure [SYMBOL...]: the symbols above on top of $defaults, those of vfio as $vfio
configure()
{
	local symbol

	mkdir -p "$OBJ"
	kmake "$defaults" || return 1
	for symbol in $symbols "$@"; do
		[[ $symbol == *=n ]] || symbol="$symbol=y"
		echo "CONFIG_$symbol"
	done > "$OBJ/check.config"
	# Whatever is a tristate of it
	sed -Ei 's/^(CONFIG_(VFIO|VFIO_PCI|VFIO_PLATFORM|VFIO_AMBA|VFIO_FSL_MC|VFIO_MDEV|VFIO_MDEV_DEVICE)|CONFIG_VFIO_PLATFORM_.*)=y/\1='"$vfio/" \
		"$OBJ/check.config"
	cat "$OBJ/check.config" >> "$OBJ/.config"
	kmake olddefconfig || return 1
	for symbol in $required "$@"; do
		if ! grep -Eq "^CONFIG_$symbol=[ym]" "$OBJ/.config"; then
			echo "error: CONFIG_$symbol cannot be enabled"
			return 1
		fi
	done
	for symbol in $symbols; do
		if [[ $symbol == *=n ]] && grep -q "^CONFIG_${symbol%=n}=" "$OBJ/.config"; then
			echo "error: CONFIG_${symbol%=n} cannot be disabled"
			return 1
		fi
	done
}

prepare()
{
	configure "$@" && kmake modules_prepare
}

# Every symbol a vfio module wants of another one is exported there.
check_symbols()
{
	local modules exported wanted missing

	mapfile -t modules < <(find "$OBJ/drivers/vfio" -name modules.order -exec cat {} + |
		sed 's/^kernel\///; s/\.k\?o$/.o/' | sort -u)
	((${#modules[@]})) || { echo "error: no modules built"; return 1; }
	# What an export leaves in an object is called differently from 6.5 on.
	exported=$(cd "$OBJ" && nm "${modules[@]}" 2>/dev/null |
		sed -n 's/.* __\(ksymtab\|export_symbol\)_\(vfio.*\|mdev.*\)$/\2/p' | sort -u)
	wanted=$(cd "$OBJ" && nm -u "${modules[@]}" 2>/dev/null |
		sed -n 's/^ *U \(vfio.*\|mdev.*\)$/\1/p' | sort -u)
	missing=$(comm -13 <(echo "$exported") <(echo "$wanted"))
	if [[ -n $missing ]]; then
		echo "error: not exported by any vfio module: ${missing//$'\n'/ }"
		return 1
	fi
}

build()
{
	local makefile dir dirs=()

	# Between the base and the tip, what x86-64 has is built there.
	for dir in ${only_here[@]+"${only_here[@]}"}; do
		[[ ! -d $SRC/$dir || -z $between ]] || dirs+=("$dir/")
	done
	if ((${#dirs[@]})); then
		kmake W=1 KBUILD_MODULES=1 "${dirs[@]}" ${others[@]+"${others[@]}"}
		return
	fi
	kmake W=1 KBUILD_MODULES=1 drivers/vfio/ ${others[@]+"${others[@]}"} || return 1
	[[ $vfio == y ]] || check_symbols || return 1
	# Modules among the selftests; without a vmlinux their symbols are unknown.
	[[ -d $SRC/$SELFTESTS && $OBJ == *x86* ]] || return 0
	{ grep -rl --include=Makefile '^obj-m' "$SRC/$SELFTESTS" || :; } | while read -r makefile; do
		rm -rf "$WORK/module"
		cp -r "$(dirname "$makefile")" "$WORK/module" || return 1
		kmake W=1 KBUILD_MODPOST_WARN=1 M="$WORK/module" modules || return 1
	done
}

# The programs among the selftests, against the headers of the tree they are in
build_selftests()
{
	rm -rf "$WORK/headers" "$WORK/selftests"
	mkdir -p "$WORK/selftests"
	kmake headers_install INSTALL_HDR_PATH="$WORK/headers" || return 1
	make -C "$SRC/$SELFTESTS" OUTPUT="$WORK/selftests" CC="$compiler" \
		KHDR_INCLUDES="-isystem $WORK/headers/include" all || return 1
	! grep -q 'warning: ' "$1"
}

# The compiler's warnings, each with no line number
warnings()
{
	grep -E ': (warning|error): |^error: ' "$1" || :
}

build_functions="configure prepare kmake build check_symbols warnings added normalize"

# build_base ARCH: its warnings are the measure for everything that follows
build_base()
{
	local arch=$1 stamp

	BASE_LOG=$WORK/base-$arch.log
	stamp=$(key "$build_functions" "base $arch" "$(git -C "$SRC" rev-parse "$base^{tree}")")
	checkout "$base"
	if [[ -f $BASE_LOG && -f $OBJ/stamp && $(< "$OBJ/stamp") == "$stamp" ]]; then
		progress "checks, $arch: preparing the base again" "$LOGS/check-prepare-$arch.log" prepare ||
			die "the base cannot be prepared: $(reason "$LOGS/check-prepare-$arch.log")"
		return
	fi
	rm -rf "$OBJ"
	progress "checks, $arch: preparing the base" "$LOGS/check-prepare-$arch.log" prepare ||
		die "the base cannot be prepared: $(reason "$LOGS/check-prepare-$arch.log")"
	progress "checks, $arch: building the base" "$BASE_LOG.new" build ||
		die "the base does not build: $(reason "$BASE_LOG.new")"
	mv "$BASE_LOG.new" "$BASE_LOG"
	echo "$stamp" > "$OBJ/stamp"
}

# configuration COMMIT [SYMBOL...]: what tells its configuration from another one
configuration()
{
	git -C "$SRC" ls-tree -r "$1" drivers/vfio | grep Kconfig
	echo "${@:2}"
}

# build_commit ARCH COMMIT DESCRIPTION LOG [SYMBOL...]
build_commit()
{
	local arch=$1 commit=$2 what=$3 log=$4 stamp config found status=0

	shift 4
	stamp=$(key "$build_functions" "build $arch $*" "$(git -C "$SRC" rev-parse "$base^{tree}" "$commit^{tree}")")
	if seen "$stamp"; then
		result 0 "$what"
		return
	fi
	if [[ -z $configured ]]; then
		between='' build_base "$arch"
		configured=$(configuration "$base")
		# While its objects are there
		! wanted sparse || between='' find_in base "sparse $arch" run_sparse warnings "$sparse_needs" || :
	fi
	checkout "$commit"
	# A patch may add a symbol.  All other preparation is part of the build.
	config=$(configuration "$commit" "$@")
	if [[ $config != "$configured" ]] &&
	   ! progress "checks, $arch: configuring $part" \
		"$log" prepare "$@"; then
		status=1
	elif ! progress "checks, $arch: building $part, $(git -C "$SRC" show -s --format=%f "$commit")" \
		"$log" build; then
		status=1
	else
		added <(warnings "$BASE_LOG") <(warnings "$log") > "$log.new"
		if [[ -s $log.new ]]; then
			status=1
		fi
		rm -f "$log.new"
	fi
	if ((status)); then
		configured=
		{
			grep -E ':[0-9]+: error: |^error: |\*\*\* ' "$log" || :
			added <(warnings "$BASE_LOG") <(warnings "$log")
		} | sort -u > "$log.why"
		[[ -s $log.why ]] || tail -n 20 "$log" > "$log.why"
		# Objects of a build that failed would hide its warnings from the next.
		rm -rf "$OBJ/drivers/vfio"
		result 1 "$what" "$log.why"
		rm -f "$log.why"
	else
		configured=$config
		remember "$stamp"
		result 0 "$what"
	fi
}

# Whether the patch has anything to do with code that a build could break
touches()
{
	git -C "$SRC" diff-tree -r --no-commit-id --name-only "$1" | grep -Eq "$2"
}

new_symbols()
{
	git -C "$SRC" diff "$base" "$tip" -- drivers/vfio |
		sed -n 's/^+\(menu\)\?config[ \t]\+\(VFIO[A-Z0-9_]*\).*/\2/p'
}

#
# What a tool finds in the series and not in the base
#
vfio_tree()
{
	git -C "$SRC" rev-parse "$base^{tree}" "$1:drivers" "$1:include"
}

# find_in base|tip NAME FUNCTION FILTER MORE: what FUNCTION prints there of what FILTER lets
# through, in the file $found of the cache.  It depends on the functions MORE, too.
find_in()
{
	local which=$1 name=$2 function=$3 filter=$4

	found=$PASSED/$(key "$function $filter $5" "found $name" "${changed[*]}" "$(vfio_tree "${!which}")")
	[[ ! -f $found || -n ${FRESH:-} ]] || return 0
	checkout "${!which}"
	progress "checks, $name: $which" "$WORK/found.$which" "$function" || {
		reason "$WORK/found.$which" > "$log"
		return 1
	}
	"$filter" "$WORK/found.$which" > "$found.new"
	mv "$found.new" "$found"
}

# compare NAME FUNCTION FILTER MORE: what is found in the series and not in the base, to $log
compare()
{
	local name=$1 found before

	log=$LOGS/${name// /-}.log
	status=0
	rm -f "$log"
	find_in base "$@" || status=1
	before=$found
	((status)) || find_in tip "$@" || status=1
	((!status)) || return 0
	added "$before" "$found" > "$log"
	[[ ! -s $log ]] || status=1
}

sparse_needs="prepare configure kmake"

# Where objects have just been built there is little to build for it.
run_sparse()
{
	[[ -n $configured ]] || prepare || return 1
	kmake C=2 CHECK=sparse KBUILD_MODULES=1 drivers/vfio/
}

check_sparse()
{
	local status log

	compare "sparse $1" run_sparse warnings "$sparse_needs"
	result "$status" "sparse: $1, no new warning in drivers/vfio" "$log"
}

# check_builds ARCH: of each patch that has to do with it
check_builds()
{
	local arch=$1 paths commit symbol n=0 todo=()

	setup "$arch"
	configured=
	case $arch in
	x86-64)
		paths='^(drivers|include|mm|fs|kernel|arch|lib|scripts|tools/testing/selftests/vfio/(mdev_pin|test_modules|fault_gate))/'
		;;
	arm64)
		paths='^(drivers/vfio/(platform|fsl-mc|cdx|pci/nvgrace-gpu|pci/hisilicon)/|drivers/vfio/(vfio\.c|Kconfig|Makefile)|include/|arch/arm64/)'
		;;
	*)
		paths='^(drivers|include|mm)/'
		;;
	esac
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		if [[ $commit == "$tip" ]] || touches "$commit" "$paths"; then
			todo+=("$n $commit")
		fi
	done
	of=0
	for commit in "${todo[@]}"; do
		read -r n commit <<< "$commit"
		of=$((of + 1))
		part="$of of ${#todo[@]}"
		between=
		[[ $commit == "$tip" ]] || between=1
		build_commit "$arch" "$commit" "build $arch: $(number "$n") $(title "$commit")" \
			"$LOGS/build-$arch-$(number "$n").log"
	done
	if wanted sparse && [[ $arch == x86-64 || $arch == arm64 ]]; then
		check_sparse "$arch"
	fi
	[[ " $ODD " != *" $arch "* ]] || return 0
	for symbol in $(new_symbols); do
		part="with CONFIG_$symbol"
		build_commit "$arch" "$tip" "build $arch: all, with CONFIG_$symbol" \
			"$LOGS/build-$arch-$symbol.log" "$symbol"
	done
}

for arch in x86-64 arm64 $ODD; do
	wanted "$arch" || continue
	# Before 6.2 there is no other way to a device than by its group.
	[[ $arch != cdev || -d $SRC/drivers/iommu/iommufd ]] || continue
	timed "static $BASE: build $arch" check_builds "$arch"
done

check_selftests()
{
	local n=0 commit stamp log status

	setup x86-64
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		touches "$commit" "^$SELFTESTS/" || continue
		# The Makefile comes with the last of them: before, nothing is built.
		git -C "$SRC" cat-file -e "$commit:$SELFTESTS/Makefile" 2>/dev/null || continue
		stamp=$(key "build_selftests kmake" selftests \
			"$(git -C "$SRC" rev-parse "$commit:tools/testing/selftests" "$commit:include/uapi")")
		log=$LOGS/build-selftests-$(number "$n").log
		status=0
		if ! seen "$stamp"; then
			checkout "$commit"
			if ! progress "checks, selftests: building $(number "$n")" "$log" build_selftests "$log"; then
				status=1
				warnings "$log" > "$log.why"
			fi
			((status)) || remember "$stamp"
		fi
		result "$status" "build selftests: $(number "$n") $(title "$commit")" "$log.why"
		rm -f "$log.why"
	done
	git -C "$SRC" clean -qfdx
}

if wanted selftests; then
	timed "static $BASE: build selftests" check_selftests
fi

if wanted sparse && ! wanted x86-64; then
	setup x86-64
	configured=
	timed "static $BASE: sparse x86-64" check_sparse x86-64
fi

#
# coccicheck, of the whole series
#
# The kernel's coccicheck takes a folder: give it one with the changed files only.
run_coccicheck()
{
	local file cocci folder=$WORK/cocci

	rm -rf "$folder"
	mkdir -p "$folder"
	for file in "${changed[@]}"; do
		if [[ $file == drivers/*.[ch] && -f $SRC/$file ]]; then
			(cd "$SRC" && cp --parents "$file" "$folder") || return 1
		fi
	done
	cd "$SRC" || return 1
	find scripts/coccinelle -name '*.cocci' | sort > "$folder/list"
	while read -r cocci; do
		if grep -Eq '^@[^@]*script:ocaml|^@initialize:ocaml' "$cocci"; then
			echo "not run, needs an OCaml compiler: $cocci"
			continue
		fi
		COCCI=$cocci MODE=report J=$JOBS KBUILD_EXTMOD=$folder srctree=$SRC \
			LINUXINCLUDE="-I$SRC/include -I$SRC/include/uapi" \
			bash scripts/coccicheck || return 1
	done < "$folder/list"
}

reports()
{
	sed -n "s,^$WORK/cocci/,,p" "$1" | grep -E '^[^ ]+\.[ch]:[0-9]+' || :
}

check_coccicheck()
{
	local status log

	compare coccicheck run_coccicheck reports ""
	result "$status" "coccicheck: no new report in the changed files" "$log"
	grep -s '^not run' "$WORK/found.tip" | sed 's/^/# coccicheck: /' || :
}

if wanted coccicheck; then
	timed "static $BASE: coccicheck" check_coccicheck
fi

echo "1..$count"
echo "$passed passed, $failed failed, 0 skipped"
exit $((failed > 0))

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: selftests.sh BASE [stock|patched]...
#
# Build the series' selftests against the patched tree's headers, statically, into
# build/BASE/selftests, with the lab's own programs, and print that path; and the modules
# that they bring along, for these kernels if they are built, into modules-VARIANT there.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
variants=("${@:2}")
((${#variants[@]})) || variants=(stock patched)

compile()
{
	local headers=$dir/usr

	# Of an earlier tree there may be objects that depend on files which this one has not
	find "$dir" -path "$dir/kbuild-*" -prune -o -name '*.[do]' -exec rm -f {} +
	kernel_make "$tree" headers_install INSTALL_HDR_PATH="$headers" || return 1
	make -C "$tree/$SELFTESTS" OUTPUT="$dir" CC="$CC" \
		KHDR_INCLUDES="-isystem $headers/include" USERLDFLAGS=-static all || return 1
	make -C "$TOP/lab/programs" SRC="$tree/$SELFTESTS" OUTPUT="$dir" CC="$CC" \
		KHDR_INCLUDES="-isystem $headers/include" || return 1
	touch "$dir/.complete"
}

# The source is copied: kbuild writes beside it.
compile_modules()
{
	local src=$1 variant=$2 to=$dir/modules-$2 makefile name

	rm -rf "$to" "$to.new"
	mkdir -p "$to.new" || return 1
	for makefile in "$tree/$SELFTESTS"/*/Makefile "$TOP"/lab/programs/*/Makefile; do
		grep -qs '^obj-m' "$makefile" || continue
		name=$(basename "$(dirname "$makefile")")
		rm -rf "${dir:?}/kbuild-$variant"
		mkdir -p "$dir/kbuild-$variant" || return 1
		cp "$(dirname "$makefile")"/* "$dir/kbuild-$variant/" || return 1
		kernel_make "$src" M="$dir/kbuild-$variant" modules || return 1
		cp "$dir/kbuild-$variant"/*.ko "$to.new/" || return 1
		echo "$name is built for $variant"
	done
	mv "$to.new" "$to"
}

# Modules fit the kernel they were built for and no other.
modules()
{
	local src=$1 variant=$2 log=$LOGS/selftests-modules-$2.log key

	[[ -f $KERNELS/$variant/bzImage && -f $src/obj-$FLAVOR/Module.symvers ]] || return 0
	key=$({
		find "$tree/$SELFTESTS" "$TOP/lab/programs" -mindepth 2 -type f -print0 | sort -z | xargs -0 -r cat
		cat "$KERNELS/$variant/modules"/*.ko "$KERNELS/$variant/bzImage"
	} | sha256sum)
	[[ ! -d $dir/modules-$variant || $(cat "$dir/modules-$variant.key" 2>/dev/null) != "$key" ]] || return 0
	rm -f "$dir/modules-$variant.key"
	lock "$src/.git/lab-build.lock"
	progress "building the selftests' modules for $variant" "$log" compile_modules "$src" "$variant" || {
		reason "$log" >&2
		die "the selftests' modules do not build for $variant; see $log"
	}
	echo "$key" > "$dir/modules-$variant.key"
}

tree=$("$TOP/lab/compose.sh" "$BASE")
dir=$KERNELS/selftests
[[ -f $tree/$SELFTESTS/Makefile ]] ||
	die "series/$BASE has no selftests: its order lacks the 'new' lines that add $SELFTESTS"
use_ccache
lock "$KERNELS/.lock-selftests"
mkdir -p "$dir"
if [[ ! -f $dir/.complete || -n $(find "$tree/$SELFTESTS" "$TOP/lab/programs" \
	"$tree/include/uapi/linux/vfio.h" -newer "$dir/.complete" -print -quit) ]]; then
	rm -f "$dir/.complete"
	progress "building the selftests" "$LOGS/selftests.log" compile || {
		reason "$LOGS/selftests.log" >&2
		die "the selftests do not build; see $LOGS/selftests.log"
	}
fi
for variant in "${variants[@]}"; do
	if [[ $variant == stock ]]; then
		modules "$("$TOP/lab/fetch.sh" "$BASE")" stock
	else
		modules "$tree" "$variant"
	fi
done
echo "$dir"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: build.sh BASE stock|patched
#
# Configure and build a kernel and its modules and leave them in build/BASE/VARIANT:
# bzImage, config, and modules/ with the order to load them in.  The objects stay
# beside the source they come from, so that the next build compiles what changed.
# With FLAVOR=release it is build/BASE/release/VARIANT, of objects of its own.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
variant=${2:-}
work=''
[[ $variant == stock || $variant == patched ]] || die "expected 'stock' or 'patched', got '$variant'"
"$TOP/lab/deps.sh" run

# Of several lines for a symbol the last one holds.
last_setting()
{
	tac | awk -F = '!/^CONFIG_/ || !seen[$1]++' | tac
}

configure()
{
	local obj=$src/obj-$FLAVOR

	mkdir -p "$obj" || return 1
	# shellcheck disable=SC2086	# a line each
	printf '%s\n' $EXTRA_CONFIG |
		cat "$TOP/lab/config/base.config" "$TOP/linux/$SELFTESTS/config" \
			"$TOP/lab/config/$FLAVOR.config" - |
		last_setting > "$obj/wanted" || return 1
	if [[ -f $obj/.config ]] && cmp -s "$obj/wanted" "$obj/wanted.done" &&
	   [[ -z $(find "$src" -path "$src/obj-*" -prune -o -name 'Kconfig*' \
		   -newer "$obj/wanted.done" -print -quit) ]]; then
		return 0
	fi
	rm -f "$obj/wanted.done"
	kernel_make "$src" -s KCONFIG_ALLCONFIG=wanted allnoconfig || return 1
	check_config "$obj" || return 1
	cp "$obj/wanted" "$obj/wanted.done"
}

# Can this kernel be asked for a symbol?  Some are older, or newer, or not for the user
# to choose but selected by others.
has_prompt()
{
	# shellcheck disable=SC2016	# the dollar is awk's
	find "$src" -path "$src/obj-*" -prune -o -name 'Kconfig*' -type f -print0 |
		xargs -0 awk -v symbol="$1" '
			/^(menu)?config[ \t]/ { inside = $2 == symbol }
			inside && /^[ \t]+((bool|tristate|int|hex|string)[ \t]+"|prompt[ \t])/ { found = 1 }
			END { if (found) print "yes" }' | grep yes >/dev/null
}

# Every symbol that was asked for must have come out as asked, if this kernel has it.
check_config()
{
	local obj=$1 line symbol bad=0

	while read -r line; do
		symbol=${line%%=*}
		[[ $symbol == CONFIG_* ]] || continue
		if [[ $line == *=n ]]; then
			! grep -q "^$symbol=" "$obj/.config" || bad=1
		elif ! grep -qxF "$line" "$obj/.config"; then
			has_prompt "${symbol#CONFIG_}" || continue
			bad=1
		fi
		if ((bad)); then
			echo "error: $line cannot be had with this configuration"
			return 1
		fi
	done < "$obj/wanted"
}

# A tree that has no objects of this flavor takes those of the stock kernel; what the
# series changes has to be newer than they are.
adopt_stock()
{
	local base

	base=$(cat "$src/.git/lab/base") || return 1
	adopt_objects "$base" "$src" "$src" || return 1
	(cd "$src" && git diff -z --name-only --diff-filter=d base | xargs -0 -r touch)
}

compile()
{
	kernel_make "$src" -j"$JOBS" bzImage modules
}

# A module comes after those it depends on.
module_order()
{
	local ko name dep

	cd "$1" || return 1
	for ko in *.ko; do
		name=${ko%.ko}
		echo "${name//-/_} ${name//-/_}"
		for dep in $(tr '\0' '\n' < "$ko" | sed -n 's/^depends=//p' | tr ',' ' '); do
			echo "${dep//-/_} ${name//-/_}"
		done
	done | tsort | while read -r name; do
		for ko in *.ko; do
			dep=${ko%.ko}
			if [[ ${dep//-/_} == "$name" ]]; then
				echo "$ko"
			fi
		done
	done > order
}

# The result is put together aside and takes its place at once.
publish()
{
	local obj=$src/obj-$FLAVOR ko

	scratch work "$KERNELS"
	mkdir -p "$work/new/modules"
	cp "$obj/arch/x86/boot/bzImage" "$work/new/bzImage"
	cp "$obj/.config" "$work/new/config"
	# modules.order has .ko names, or .o names on newer kernels.
	while read -r ko; do
		cp "$obj/${ko%.*}.ko" "$work/new/modules/"
	done < "$obj/modules.order"
	(module_order "$work/new/modules")
	[[ -s $work/new/modules/order ]] || die "no modules were built"
	if ! diff -rq "$work/new" "$KERNELS/$variant" >/dev/null 2>&1; then
		rm -rf "$KERNELS/.old-$variant"
		[[ ! -d $KERNELS/$variant ]] || mv "$KERNELS/$variant" "$KERNELS/.old-$variant"
		mv "$work/new" "$KERNELS/$variant"
		rm -rf "$KERNELS/.old-$variant"
	fi
}

case $variant in
stock)		src=$("$TOP/lab/fetch.sh" "$BASE") ;;
patched)	src=$("$TOP/lab/compose.sh" "$BASE") ;;
esac

use_ccache
log=$LOGS/build-$variant.log
lock "$src/.git/lab-build.lock"
need_space "$src" 600 "a kernel build"
if [[ $variant == patched && ! -d $src/obj-$FLAVOR ]]; then
	progress "taking over the objects of stock $BASE" "$log" adopt_stock ||
		die "cannot copy the objects of stock $BASE: $(reason "$log")"
fi
if ! progress "configuring $variant $BASE" "$log" configure; then
	die "configuring $variant $BASE failed: $(reason "$log" | head -n 1) ($log)"
fi
rm -f "$src/obj-$FLAVOR/.complete"
# A tree that has been built, or has taken over objects, has little left to do.
[[ -f $src/obj-$FLAVOR/vmlinux ]] || STEPS=$BUILD_LINES
if ! progress "building $variant $BASE" "$log" compile; then
	reason "$log" >&2
	die "building $variant $BASE failed; the compiler's words are in $log"
fi
touch "$src/obj-$FLAVOR/.complete"
publish
echo "$KERNELS/$variant"

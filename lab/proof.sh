#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: proof.sh BASE
#
# Show each test failing: run them all on stock and on the patched kernel, and those
# that lab/reverts.list names on kernels with one fix reverted each.  What became of them is
# kept in docs/proof/BASE.tsv, of a revert the tests that failed, and docs/proof/BASE.md is
# the table of it.  ONLY="NAME..." takes some of the reverts, or stock, or patched, and
# leaves the results of the others; so does stock:TEST,... for these of lab/tests.list.  RESUME=1 tries only those of which there is no result
# with the present code.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
read -ra only <<< "${ONLY:-}"
unset ONLY

# A kernel that is broken on purpose is expected to hang: a shorter wait will do.
export VMTEST_APPEND="${VMTEST_APPEND:-} sysctl.kernel.hung_task_timeout_secs=40"

# code LABEL: what was tested, by the contents of drivers/vfio
code()
{
	git -C "$TREE" rev-parse --short=12 "$([[ $1 == stock ]] && echo base || echo "$commit"):drivers/vfio"
}

have()
{
	[[ -n ${RESUME:-} && -f $store ]] && grep -qxF "$1"$'\t'"code"$'\t'"$(code "$1")" "$store"
}

# keep LABEL [NAME]...: what vmtests.sh printed, in place of what the store has of these
keep()
{
	(
		flock 9
		{
			[[ ! -f $store ]] || awk -F '\t' -v label="$1" -v names="${*:2}" '
				function other(test)
				{
					sub(/:.*/, "", test)
					return names != "" && test != "code" && index(" " names " ", " " test " ") == 0
				}
				$1 != label || other($2 == "code" ? "code" : $3)' "$store"
			printf '%s\tcode\t%s\n' "$1" "$(code "$1")"
			printed "$proof/$1" | awk -F '\t' -v label="$1" '
				label ~ /^(stock|patched)$/ || $2 == "not ok" { print label "\t" $2 "\t" $1 }'
		} | sort -s -t $'\t' -k 1,1 > "$proof/store"
		mkdir -p "${store%/*}"
		mv "$proof/store" "$store"
	) 9> "$OUT/.lock-store"
}

# try LABEL KERNEL_DIR [NAME]...: what is printed is in build/BASE/proof/LABEL.
try()
{
	local label=$1 kernel=$2

	shift 2
	say "testing on $label"
	"$TOP/lab/vmtests.sh" "$BASE" "$kernel" "$programs" "$@" > "$proof/$label" || :
	grep -qE '^[0-9]+ passed, ' "$proof/$label" || die "the tests did not run on $label"
	if [[ $label == stock || $label == patched ]]; then
		keep "$label" "$@"
	else
		keep "$label"
	fi
}

# tests_of LABEL: those that ONLY names
tests_of()
{
	local word

	for word in "${only[@]}"; do
		[[ $word != "$1":* ]] || tr , '\n' <<< "${word#*:}"
	done
}

# patch_of NAME: the base's own, or the one for all
patch_of()
{
	local patch=$TOP/lab/reverts/$BASE/$1.patch

	[[ -f $patch ]] || patch=$TOP/lab/reverts/$1.patch
	[[ -f $patch ]] || die "lab/reverts.list names $1, but there is no lab/reverts/$1.patch"
	echo "$patch"
}

# The modules of vfio, or all of it where a patch goes beyond drivers/vfio
build_mutant()
{
	local name=$1 patch log=$LOGS/proof-$1.log kernel=$proof/kernel-$1

	patch=$(patch_of "$name")
	git -C "$mutant" checkout -q -f --detach "$commit"
	git -C "$mutant" apply "$patch" 2> "$log" ||
		die "$patch does not apply: $(head -n 1 "$log")"
	if git -C "$mutant" diff --name-only | grep -qv '^drivers/vfio/'; then
		progress "building without: $name" "$log" compile_clone "$mutant" || not_built "$patch" "$log"
		publish_clone "$mutant" "$kernel"
	else
		progress "building without: $name" "$log" kernel_make "$mutant" -j"$JOBS" \
			KBUILD_MODPOST_WARN=1 "${modules[@]}" || not_built "$patch" "$log"
		rm -rf "$kernel"
		cp -r "$KERNELS/patched" "$kernel"
		cp "${modules[@]/#/"$mutant/obj-$FLAVOR/"}" "$kernel/modules/"
	fi
	rm -rf "$programs/modules-kernel-$name"
	cp -r "$programs/modules-patched" "$programs/modules-kernel-$name"
}

not_built()
{
	reason "$2" >&2
	die "it does not build with $1; see $2"
}

# One guest at a time: the next kernel is built and tried meanwhile
try_mutant()
{
	local name=$1

	JOBS=1 try "$name" "$proof/kernel-$name" "${@:2}"
	grep -q '^not ok' "$proof/$name" || say "no test of ${*:2} fails without $name"
	rm -rf "$proof/kernel-$name" "$programs/modules-kernel-$name"
}

stop_tries()
{
	local pid

	for pid in $(jobs -p); do
		kill -TERM -- "-$pid" 2>/dev/null || :
	done
	wait
}

# for_base NAME TESTS: those that say nothing of bases are for all, if the patch applies
for_base()
{
	if [[ " $2 " == *" @"* ]]; then
		[[ " $2 " == *" @$BASE "* ]]
	else
		[[ $BASE == "$newest" ]] || applies "$(patch_of "$1")"
	fi
}

is_listed()
{
	[[ " ${names[*]} " == *" $1 "* ]]
}

applies()
{
	git -C "$TREE" apply --check "$1" 2>/dev/null
}

# test name<TAB>result, from what vmtests.sh printed
printed()
{
	sed -nE 's/^ok [0-9]+ - ([^ ]+: [^ ]+) # SKIP fixed in .*/\1\tknown/p; t
		s/^ok [0-9]+ - ([^ ]+: [^ ]+) # SKIP.*/\1\tskip/p; t
		s/^(ok|not ok) [0-9]+ - ([^ ]+: [^ ]+).*/\2\t\1/p' "$1"
}

# and from the store
results()
{
	awk -F '\t' -v label="$1" '$1 == label && $2 != "code" { print $3 "\t" $2 }' "$store"
}

write_table()
{
	local test result stock fails name tests what

	declare -A on_stock=() on_patched=() undone=()
	while IFS=$'\t' read -r test result; do
		on_stock[$test]=$result
	done < <(results stock)
	while IFS=$'\t' read -r test result; do
		on_patched[$test]=$result
	done < <(results patched)
	for name in "${names[@]}"; do
		while IFS=$'\t' read -r test result; do
			[[ $result != 'not ok' ]] || undone[$test]+="${undone[$test]:+, }$name"
		done < <(results "$name")
	done

	[[ ! -f $TOP/docs/proof.head ]] || cat "$TOP/docs/proof.head"
	echo "## Linux $BASE"
	echo
	echo "| test | stock | patched | fails without |"
	echo "|---|---|---|---|"
	while read -r test; do
		stock=${on_stock[$test]:-not run}
		fails=${undone[$test]:-}
		printf '| %s | %s | %s | %s |\n' "$test" "$(word "$stock")" \
			"$(word "${on_patched[$test]}")" "$fails"
	done < <(results patched | cut -f 1)
	echo
	echo "| reverted | what that undoes | tests that fail |"
	echo "|---|---|---|"
	while IFS='|' read -r name tests what; do
		name=$(trim "$name")
		[[ -n $name && $name != '#'* ]] || continue
		is_listed "$name" || continue
		fails='not run'
		! grep -q "^$name"$'\t' "$store" || fails=$(results "$name" | wc -l)
		[[ $fails =~ ^[1-9] ]] || fails="**$fails**"
		printf '| %s | %s | %s |\n' "$name" "$(trim "$what")" "$fails"
	done < "$TOP/lab/reverts.list"
}

word()
{
	case $1 in
	ok)		echo passes ;;
	'not ok')	echo '**fails**' ;;
	skip)		echo skipped ;;
	known)		echo '**fails**, by a bug of this kernel' ;;
	*)		echo "$1" ;;
	esac
}

[[ -f $TOP/lab/reverts.list ]] || die "lab/reverts.list is missing"
newest=$(bases | tail -n 1)
for name in ${only[@]+"${only[@]}"}; do
	known "${name%%:*}" "$({ echo stock; echo patched; sed -n 's/^\([a-z0-9-]*\) *|.*/\1/p' "$TOP/lab/reverts.list"; })"
done
"$TOP/lab/compose.sh" "$BASE" > /dev/null
names=()
while IFS='|' read -r name tests _; do
	name=$(trim "$name")
	[[ -n $name && $name != '#'* ]] || continue
	for_base "$name" "$tests" || continue
	names+=("$name")
done < "$TOP/lab/reverts.list"
for name in ${only[@]+"${only[@]}"}; do
	[[ $name =~ ^(stock|patched)(:|$) ]] || is_listed "$name" || die "the revert $name is not for $BASE"
done
((${#only[@]})) || only=(patched "${names[@]}" stock)
tried=0
store=$TOP/docs/proof/$BASE.tsv
trap 'stop_tries; cleanup' EXIT

# Before hours are spent: what cannot be reverted on this base?
"$TOP/lab/deps.sh" run
stale=()
for name in "${names[@]}"; do
	applies "$(patch_of "$name")" || stale+=("$name")
done
((${#stale[@]} == 0)) ||
	die "${#stale[@]} of ${#names[@]} reverts do not apply to $BASE yet, so there is no proof for it; each needs a lab/reverts/$BASE/NAME.patch: ${stale[*]}"
build_programs stock patched
use_ccache
lock "$OUT/.lock-proof"
proof=$OUT/proof
mutant=$OUT/proof-tree
mkdir -p "$proof"
commit=$(git -C "$TREE" rev-parse HEAD)
mapfile -t modules < <(sed -n 's,^drivers/vfio/.*\.k\?o$,&,p' "$TREE/obj-$FLAVOR/modules.order" | sed 's/\.o$/.ko/')

wanted()
{
	[[ " ${only[*]} " == *" $1"[:\ ]* ]] && ! have "$1"
}

rm -rf "$mutant"
mapfile -t tests < <(tests_of patched)
! wanted patched || try patched "$KERNELS/patched" "${tests[@]}"
while IFS='|' read -r name tests _; do
	name=$(trim "$name")
	[[ -n $name && $name != '#'* ]] || continue
	{ is_listed "$name" && wanted "$name"; } || continue
	if [[ ! -d $mutant ]]; then
		need_space "$OUT" 3000 "a kernel tree"
		progress "cloning the patched tree" "$LOGS/proof-clone.log" clone_patched "$mutant" "$commit" ||
			die "cannot clone $TREE: $(reason "$LOGS/proof-clone.log")"
	fi
	if ((tried >= JOBS)); then
		tried=$((tried - 1))
		wait -n || die "a kernel could not be tested, see above"
	fi
	build_mutant "$name"
	read -ra tests < <(tr -s ' ' '\n' <<< "$tests" | grep -v '^@' | paste -s -d ' ')
	set -m
	try_mutant "$name" "${tests[@]}" < /dev/null &
	set +m
	tried=$((tried + 1))
done < "$TOP/lab/reverts.list"
for ((; tried; tried--)); do
	wait -n || die "a kernel could not be tested, see above"
done
rm -rf "$mutant"
mapfile -t tests < <(tests_of stock)
! wanted stock || try stock "$KERNELS/stock" "${tests[@]}"
write_table > "$proof/table"
mv "$proof/table" "$TOP/docs/proof/$BASE.md"
say "wrote docs/proof/$BASE.md"
for name in "${only[@]}"; do
	[[ ! $name =~ ^(stock|patched)(:|$) ]] || continue
	echo "$name: $(results "$name" | wc -l) tests fail"
done
failing=$(results patched | grep -c 'not ok$' || :)
((failing == 0)) || die "$failing tests fail on the patched kernel"

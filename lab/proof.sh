#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: proof.sh BASE
#
# Show each test failing: run them all on stock and on the patched kernel, and those
# that lab/reverts.list names on kernels with one fix reverted each, and write
# docs/proof/BASE.md.  ONLY="NAME..." takes only these reverts, and writes no file.
# RESUME=1 takes the results that there are already, of a run that was interrupted
# or of one with ONLY, as they are.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
read -ra only <<< "${ONLY:-}"
unset ONLY

# A kernel that is broken on purpose is expected to hang: a shorter wait will do.
export VMTEST_APPEND="${VMTEST_APPEND:-} sysctl.kernel.hung_task_timeout_secs=40"

have()
{
	[[ -n ${RESUME:-} && -s $proof/$1 ]]
}

# try LABEL KERNEL_DIR [NAME]...: results in build/BASE/proof/LABEL.
try()
{
	local label=$1 kernel=$2

	shift 2
	! have "$label" || return 0
	say "testing on $label"
	"$TOP/lab/vmtests.sh" "$BASE" "$kernel" "$programs" "$@" > "$proof/$label.new" || :
	grep -qE '^[0-9]+ passed, ' "$proof/$label.new" || die "the tests did not run on $label"
	mv "$proof/$label.new" "$proof/$label"
}

# patch_of NAME: the base's own, or the one for all
patch_of()
{
	local patch=$TOP/lab/reverts/$BASE/$1.patch

	[[ -f $patch ]] || patch=$TOP/lab/reverts/$1.patch
	[[ -f $patch ]] || die "lab/reverts.list names $1, but there is no lab/reverts/$1.patch"
	echo "$patch"
}

build_mutant()
{
	local name=$1 patch log=$LOGS/proof-$1.log

	patch=$(patch_of "$name")
	git -C "$mutant" checkout -q -f --detach "$commit"
	git -C "$mutant" apply "$patch" 2> "$log" ||
		die "$patch does not apply: $(head -n 1 "$log")"
	progress "building without: $name" "$log" compile_clone "$mutant" || {
		reason "$log" >&2
		die "it does not build with $patch; see $log"
	}
	publish_clone "$mutant" "$proof/kernel-$name"
	rm -rf "$programs/modules-kernel-$name"
	cp -r "$programs/modules-patched" "$programs/modules-kernel-$name"
}

# One guest at a time: the next kernel is built and tried meanwhile
try_mutant()
{
	local name=$1

	JOBS=1 try "$name" "$proof/kernel-$name" "${@:2}"
	grep -q '^not ok' "$proof/$name" || say "no test fails without $name"
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

# The bases share what is reverted, so the newest stands for all, where nothing is said
for_base()
{
	if [[ " $1 " == *" @"* ]]; then
		[[ " $1 " == *" @$BASE "* ]]
	else
		[[ $BASE == "$newest" ]]
	fi
}

# test name<TAB>result, from what vmtests.sh printed
results()
{
	[[ ! -f $proof/$1 ]] ||
		sed -nE 's/^skip - ([^ ]+: [^ ]+) # fails on .*/\1\tknown/p; t
			s/^(ok|not ok|skip) - ([^ ]+: [^ ]+).*/\2\t\1/p' "$proof/$1"
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
		for_base "$tests" || continue
		fails='not run'
		[[ ! -s $proof/$name ]] ||
			fails=$(results "$name" | awk -F '\t' '$2 == "not ok"' | wc -l)
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
names=()
while IFS='|' read -r name tests _; do
	name=$(trim "$name")
	[[ -n $name && $name != '#'* ]] || continue
	for_base "$tests" || continue
	names+=("$name")
done < "$TOP/lab/reverts.list"
for name in ${only[@]+"${only[@]}"}; do
	known "$name" "$(printf '%s\n' "${names[@]}")"
done
((${#only[@]} == 0)) || names=("${only[@]}")
tried=0
trap 'stop_tries; cleanup' EXIT

# Before hours are spent: what cannot be reverted on this base?
"$TOP/lab/deps.sh" run
tree=$("$TOP/lab/compose.sh" "$BASE")
stale=()
for name in "${names[@]}"; do
	patch=$(patch_of "$name")
	git -C "$tree" apply --check "$patch" 2>/dev/null || stale+=("$name")
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

if ((${#only[@]} == 0)); then
	rm -f "$proof"/*.new
	try patched "$KERNELS/patched"
fi
need_space "$OUT" 3000 "a kernel tree"
progress "cloning the patched tree" "$LOGS/proof-clone.log" clone_patched "$mutant" "$commit" ||
	die "cannot clone $TREE: $(reason "$LOGS/proof-clone.log")"
while IFS='|' read -r name tests _; do
	name=$(trim "$name")
	[[ -n $name && $name != '#'* && " ${names[*]} " == *" $name "* ]] || continue
	! have "$name" || continue
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

if ((${#only[@]})); then
	for name in "${names[@]}"; do
		echo "$name:"
		grep '^not ok' "$proof/$name" | sed 's/^/  /' || echo "  no test fails"
	done
	exit 0
fi
try stock "$KERNELS/stock"
write_table > "$proof/table"
mkdir -p "$TOP/docs/proof"
mv "$proof/table" "$TOP/docs/proof/$BASE.md"
say "wrote docs/proof/$BASE.md"
failing=$(grep -c '^not ok' "$proof/patched" || :)
((failing == 0)) || die "$failing tests fail on the patched kernel"

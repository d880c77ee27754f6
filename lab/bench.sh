#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: bench.sh BASE
#
# Measure what device memory costs on the stock and on the patched kernel, without the
# debug machinery, beside what the IOMMU alone costs: in instructions, which QEMU counts.
# Print the table, and write it with the raw figures and the diagrams to build/BASE/bench
# and to docs/bench/BASE.  Fails if the patched kernel misses a goal or a bar, which lab/bench.py
# has, unless lab/bench.known says why.
#
# LARGE=256G: the size of the BAR to map.  RUNS=2: how often; a figure is the least of all
# runs, and how far apart these were is told with the table.  RESUME=1 takes the runs that
# are there already.

export FLAVOR=${FLAVOR:-release}
. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

readonly PROGRAM=vfio_bench
RUNS=${RUNS:-2}
LARGE=${LARGE:-256G}
bench=$OUT/bench

[[ $RUNS =~ ^[1-9][0-9]*$ ]] || die "RUNS=$RUNS: not a number of runs"
# A BAR is a power of two, and QEMU's has to fit into what a guest can address.
is_bar()
{
	[[ $1 =~ ^([1-9][0-9]{0,3})G$ ]] || return 1
	((BASH_REMATCH[1] <= 256 && (BASH_REMATCH[1] & (BASH_REMATCH[1] - 1)) == 0))
}
is_bar "$LARGE" || die "LARGE=$LARGE: not the size of a BAR; give a power of two from 1G to 256G"

boot()
{
	local variant=$1 run=$2 status=0 log=$LOGS/bench-$1-$2.log out=$bench/$1-$2

	if [[ -n ${RESUME:-} && -s $out.tsv ]]; then
		return
	fi
	rm -f "$out.tsv"
	progress "measuring $variant $BASE, run $run" "$out.out" \
		"$VMTEST" -i -a norandmaps -c 1 -m 3072 -t 3600 -l "$log" \
		-o "memory-backend-ram,id=large,share=on,size=$LARGE,reserve=off" \
		-d ivshmem-plain,memdev=large,master=on \
		-f "$programs/modules-$variant/iommu_floor.ko" \
		"$KERNELS/$variant" -- "$programs/$PROGRAM" || status=$?
	case $status in
	0)	;;
	125)	say "the $variant kernel complained: $(grep -m 1 '^[0-9]*:\[' "$out.out") ($log)" ;;
	124)	die "the $variant guest did not end in time; its console is in $log" ;;
	126|127) die "the $variant guest did not run: $(grep -m 1 vmtest.sh: "$out.out") ($log)" ;;
	*)	die "$PROGRAM ended with status $status on $variant: $(grep -m 1 -E 'not true|FAIL|ended with' "$out.out") ($log)" ;;
	esac
	tr -d '\r' < "$out.out" | grep -E $'^[a-z_]+\\.[a-z_]+\\.[0-9]+\t[0-9]+$' > "$out.tsv" ||
		die "$PROGRAM printed no figures on $variant; see $out.out"
}

"$TOP/lab/deps.sh" bench
build_programs stock patched
[[ -x $programs/$PROGRAM ]] || die "$programs has no $PROGRAM"
lock "$OUT/.lock-bench"
mkdir -p "$bench"
for variant in stock patched; do
	for ((run = 1; run <= RUNS; run++)); do
		boot "$variant" "$run"
	done
done
version=$(guest_version "$LOGS/bench-patched-1.log")

status=0
python3 "$TOP/lab/bench.py" "$version" "$RUNS" "$bench" > "$bench/table.txt" || status=$?
cat "$bench/table.txt"
((status <= 1)) || die "lab/bench.py ended with status $status"
mkdir -p "$TOP/docs/bench/$BASE"
cp "$bench"/*.csv "$bench"/*.svg "$bench/table.txt" "$TOP/docs/bench/$BASE/"
echo "Figures and diagrams: $bench, and docs/bench/$BASE"
((status == 0)) || die "the patched kernel misses goals or bars that lab/bench.known does not have, or meets one that it has"

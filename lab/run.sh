#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: run.sh BASE...
#
# Build the stock and the patched kernel of each base, boot each, measure, and print
# one table: stock beside patched, or all kernels side by side.  Fails if a patched
# kernel does not do what lab/run.expect says it does.

. "$(dirname "$0")/lib.sh"
(($#)) || set -- ''
for base; do
	load_base "$base"
done

readonly PROGRAM=vfio_proof
readonly CELL=15

# A guest that dies takes the rows with it that it had not printed yet.
boot()
{
	local variant=$1 status=0 log=$LOGS/run-$1.log

	progress "measuring on $variant $BASE" "$LOGS/run-$variant.out" \
		"$VMTEST" -c 2 -m 2048 -t 600 -l "$log" "$KERNELS/$variant" -- "$programs/$PROGRAM" || status=$?
	# vmtest.sh shows the lines that made it fail, each with its number.
	printf 'splats\t%s\n' "$(grep -cE '^[0-9]+:\[ *[0-9]+\.[0-9]+\]' "$LOGS/run-$variant.out")" \
		>> "$LOGS/run-$variant.out"
	case $status in
	0|125)	;;
	124)	say "the $variant guest did not end in time; its console is in $log" ;;
	126|127) die "the $variant guest did not run: $(grep vmtest.sh: "$LOGS/run-$variant.out" | head -n 1) ($log)" ;;
	*)	say "$PROGRAM ended with status $status on $variant; see $log" ;;
	esac
}

measure()
{
	build_programs stock patched
	[[ -x $programs/$PROGRAM ]] || die "$programs has no $PROGRAM"
	lock "$OUT/.lock-run"
	boot stock
	boot patched
}

value()
{
	awk -F '\t' -v name="$2" '$1 == name { v = $2 } END { print v }' "$LOGS/run-$1.out" | tr -d '\r'
}

shown()
{
	local name=$1 value=$2

	if [[ -z $value ]]; then
		echo "not measured"
	elif [[ $name == *_us && $value =~ ^[0-9]+$ ]]; then
		awk -v us="$value" 'BEGIN { printf us < 10000 ? "%.2f ms\n" : "%.0f ms\n", us / 1000 }'
	elif [[ $name == *_kb ]]; then
		echo "$value KiB"
	else
		echo "$value"
	fi
}

# line FIRST CELL...: a row of the table, in the syntax of Markdown
line()
{
	local cell

	printf '| %-48s |' "$1"
	shift
	for cell; do
		printf " %-${CELL}s |" "$cell"
	done
	echo
}

rule()
{
	local dashes=()

	while ((${#dashes[@]} < $#)); do
		dashes+=("$(printf "%0${CELL}d" 0 | tr 0 -)")
	done
	line "$(printf '%048d' 0 | tr 0 -)" "${dashes[@]}"
}

table()
{
	local name what promised heads=() cells base missed

	for base; do
		load_base "$base"
		heads+=("$(guest_version "$LOGS/run-patched.log")" "+ series")
	done
	echo
	line "Linux" "${heads[@]}"
	rule "${heads[@]}"
	while IFS='|' read -r name what promised; do
		name=$(trim "$name")
		[[ -n $name && $name != '#'* ]] || continue
		promised=$(trim "$promised")
		cells=() missed=
		for base; do
			load_base "$base"
			cells+=("$(shown "$name" "$(value stock "$name")")")
			cells+=("$(shown "$name" "$(value patched "$name")")")
			if ! grep -qxE -- "$promised" <<< "$(value patched "$name")"; then
				missed+=" $base"
				broken=$((broken + 1))
			fi
		done
		line "$(trim "$what")" "${cells[@]}"
		[[ -z $missed ]] || echo "^^^ not as promised ($promised):$missed"
	done < "$TOP/lab/run.expect"
	echo
}

"$TOP/lab/deps.sh" run
for base; do
	load_base "$base"
	measure
done
broken=0
table "$@"
for base; do
	load_base "$base"
	echo "Logs: $LOGS/run-{stock,patched}.{out,log}"
done
if ((broken)); then
	die "$broken cells of the patched kernels are not what the series promises"
fi

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: run.sh BASE
#
# Build the stock and the patched kernel, boot each, measure, and print one table.
# Fails if the patched kernel does not do what lab/run.expect says it does.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

readonly PROGRAM=vfio_proof

# A guest that dies takes the rows with it that it had not printed yet.
boot()
{
	local variant=$1 status=0 log=$LOGS/run-$1.log

	progress "measuring on $variant $BASE" "$LOGS/run-$variant.out" \
		"$VMTEST" -c 2 -m 2048 -t 600 -l "$log" "$OUT/$variant" -- "$programs/$PROGRAM" || status=$?
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

table()
{
	local name what promised stock patched verdict

	printf '\n%-48s %-16s %-16s\n' "Linux $(version)" stock patched
	printf '%-48s %-16s %-16s\n' "$(printf '%048d' 0 | tr 0 -)" ---------------- ----------------
	while IFS='|' read -r name what promised; do
		name=$(trim "$name")
		[[ -n $name && $name != '#'* ]] || continue
		promised=$(trim "$promised")
		stock=$(value stock "$name")
		patched=$(value patched "$name")
		verdict=
		if ! grep -qxE -- "$promised" <<< "$patched"; then
			verdict="  <-- promised: $promised"
			broken=$((broken + 1))
		fi
		printf '%-48s %-16s %-16s%s\n' "$(trim "$what")" "$(shown "$name" "$stock")" \
			"$(shown "$name" "$patched")" "$verdict"
	done < "$TOP/lab/run.expect"
	echo
}

version()
{
	tr -d '\r' < "$LOGS/run-patched.log" | sed -nE 's/.*Linux version ([0-9.]+).*/\1/p' | head -n 1
}

"$TOP/lab/deps.sh" run
"$TOP/lab/build.sh" "$BASE" stock >/dev/null
"$TOP/lab/build.sh" "$BASE" patched >/dev/null
programs=$("$TOP/lab/selftests.sh" "$BASE")
[[ -x $programs/$PROGRAM ]] || die "series/$BASE has no $PROGRAM among its selftests"

lock "$OUT/.lock-run"
boot stock
boot patched
broken=0
table
echo "Logs: $LOGS/run-{stock,patched}.{out,log}"
if ((broken)); then
	die "$broken rows of the patched kernel are not what the series promises"
fi

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: run.sh BASE...
#
# Boot Debian's own kernel of each base, with its own modules of vfio and with those of the
# series, measure, and print one table: stock beside patched, or all side by side.  Fails if
# a patched one does not do what lab/run.expect says it does.
#
# DEBUG=1: kernels that are built here instead, with KASAN, lockdep, and the IOMMU's page
# tables in debugfs.  So it is for a KERNEL_SRC, and where there is no image of Debian's.

. "$(dirname "$0")/lib.sh"
(($#)) || set -- ''
for base; do
	load_base "$base"
done

readonly PROGRAM=vfio_proof
[[ ${DEBUG:-} =~ ^1?$ ]] || die "DEBUG=$DEBUG: give 1, or nothing"
readonly CELL=15

# A guest that dies takes the rows with it that it had not printed yet.
boot()
{
	local variant=$1 kernels=$2 status=0 log=$LOGS/run-$1.log

	shift 2
	progress "measuring on $variant $BASE" "$LOGS/run-$variant.out" \
		"$VMTEST" -c 2 -m 2048 -t 600 -l "$log" "$@" "$kernels/$variant" -- "$programs/$PROGRAM" || status=$?
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

# Debian's image?
is_debian()
{
	[[ -z ${DEBUG:-} && -z ${KERNEL_SRC:-} && -n $DEBIAN_RELEASE ]]
}

measure()
{
	local kernels=$KERNELS options=()

	if is_debian; then
		kernels=$("$TOP/lab/debian.sh" "$BASE")
		programs=$("$TOP/lab/selftests.sh" "$BASE")
		# What BARs hold is looked at from outside of vfio
		options=(-a iomem=relaxed)
	else
		[[ -n ${DEBUG:-} ]] || say "$BASE: building kernels, as there are no modules of the series for its image"
		build_programs stock patched
	fi
	[[ -x $programs/$PROGRAM ]] || die "$programs has no $PROGRAM"
	lock "$OUT/.lock-run"
	boot stock "$kernels" ${options[@]+"${options[@]}"}
	boot patched "$kernels" ${options[@]+"${options[@]}"}
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
			is_debian && [[ $(value patched "$name") == "not in this kernel" ]] && continue
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

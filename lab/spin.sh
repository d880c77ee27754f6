#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Check the models with spin.  The design must have no error at all; each
# alternative to it must have exactly the error that is the reason why the
# design is not that alternative.
#
# Usage: lab/spin.sh [NAME]...	the checks whose name contains one of NAME

set -u
export LC_ALL=C
unset CDPATH

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TIMEOUT=${SPIN_TIMEOUT:-300}

JOBS=${SPIN_JOBS:-${JOBS:-2}}

# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"
count=0
printed=0
names=("$@")

die()
{
	echo "lab: error: $*" >&2
	exit 1
}

for tool in spin gcc timeout; do
	command -v "$tool" >/dev/null ||
		die "$tool is missing; apt-get install spin gcc coreutils"
done

TMP=$(mktemp -d) || die "no temporary directory"
trap 'rm -rf "$TMP"' EXIT
stop()
{
	local job

	for job in $(jobs -p); do
		kill -- "-$job"
	done
	exit 130
}
trap stop INT TERM
set -m		# a process group for each search, to be able to end it

# found STATUS DESCRIPTION [DETAIL]: what report() will say of a check
found()
{
	printf '%s\n' "$1" "$2"
	[ "$1" = ok ] || echo "again: lab/spin.sh '$what'"
	[ $# -lt 3 ] || printf '%s\n' "$3"
}

wanted()
{
	local n

	[ ${#names[@]} -gt 0 ] || return 0
	for n in "${names[@]}"; do
		case $1 in *"$n"*) return 0 ;; esac
	done
	return 1
}

# What is known by now, in the order in which it was asked for
report()
{
	local status what

	while [ -e "$TMP/result.$((printed + 1))" ]; do
		printed=$((printed + 1))
		{
			read -r status
			read -r what
			cat > "$TMP/detail"
		} < "$TMP/result.$printed"
		result "$status" "$what" "$TMP/detail"
		[ "$status" != ok ] || sed 's/^/# /' "$TMP/detail"
	done
}

# check FUNCTION MODEL DESCRIPTION ARGUMENT...: no more than JOBS at a time
check()
{
	wanted "$2 $3" || return 0
	count=$((count + 1))
	while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do
		wait -n
	done
	report
	(
		"$@" >"$TMP/$count" 2>&1
		mv "$TMP/$count" "$TMP/result.$count"
	) &
}

# search OPT MODEL DEFINES...: the output of spin and of the search is in $log.  To compile
# it for speed, OPT, takes longer than most searches.
search()
{
	local opt=$1 model=$2 dir
	shift 2

	dir=$(mktemp -d "$TMP/XXXXXX") || die "no temporary directory"
	log=$dir/log
	cp "$TOP/model/$model" "$dir/model.pml" || exit 1
	(
		cd "$dir" || exit 1
		spin "$@" -a model.pml &&
		gcc "$opt" -w -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c &&
		timeout --foreground "$TIMEOUT" ./pan -m100000 -w24
	) >"$log" 2>&1
	status=$?
	[ ! -f "$dir/model.pml.trail" ] ||
		(cd "$dir" && spin "$@" -t -g model.pml) >"$dir/trail" 2>&1
	trail=$dir/trail
	rm -f "$dir"/pan*
}

# holds MODEL DESCRIPTION DEFINES...: no error, and nothing left unsearched
holds()
{
	check search_all "$@"
}

search_all()
{
	local model=$1 what=$2 states
	shift 2

	search -O1 "$model" "$@"
	if [ "$status" -eq 124 ]; then
		found fail "$what" "not finished within $TIMEOUT s"
	elif [ "$status" -ne 0 ] || ! grep -q 'errors: 0$' "$log" ||
	     grep -Eq 'max search depth too small|^Warning: Search not completed|out of memory' "$log"; then
		found fail "$what" "$(grep -v '^Depth=' "$log" | tail -n 15)"
	else
		states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$log")
		found ok "$what ($states states)"
	fi
}

# breaks MODEL DESCRIPTION ERROR FINAL DEFINES...: spin finds this very error.
# ERROR is an extended regular expression for it; FINAL, if not empty, names
# the variables that must be set in the state it ends in.
breaks()
{
	check search_error "$@"
}

search_error()
{
	local model=$1 what=$2 error=$3 final=$4 seen var
	shift 4

	search -O0 "$model" "$@"
	seen=$(grep -m 1 -E '^pan:[0-9]+: (assertion violated|invalid end state)' "$log")
	if ! printf '%s\n' "$seen" | grep -Eq "^pan:[0-9]+: ($error)"; then
		found fail "$what" "$(printf 'wanted: %s\nfound: %s\n' \
			"$error" "${seen:-nothing}"; grep -v '^Depth=' "$log" | tail -n 8)"
		return
	fi
	for var in $final; do
		if ! grep -Fq "$var = 1" "$trail"; then
			found fail "$what" "$seen, but not with $var set"
			return
		fi
	done
	found ok "$what" "${seen#pan:*: }"
}

deadlock='invalid end state'
gone()
{
	# A variable that says so is an index away from its name or not at all.
	echo "assertion violated +!\\($1[][)]"
}

ktap_begin

holds memory.pml "design: faults against disabling, reset and hot resets"
breaks memory.pml "faulting without memory_lock lets the CPU reach disabled memory" \
	"$(gone bad_access)" "" -DFAULT_UNLOCKED
breaks memory.pml "faulting with a trylock gives a SIGBUS while the memory is enabled" \
	"$(gone bad_sigbus)" "" -DFAULT_TRYLOCK
breaks memory.pml "taking a page for absent populates it twice" \
	"$(gone populated_twice)" "" -DFAULT_REMAPS
breaks memory.pml "zapping after the memory is disabled lets the CPU reach it" \
	"$(gone bad_access)" "" -DZAP_AFTER_DISABLE
breaks memory.pml "hot resets that wait for each other's memory_lock deadlock" \
	"$deadlock" "writer[0] writer[1]" -DHOT_RESET_WAITS
breaks memory.pml "touching user memory under memory_lock deadlocks" \
	"$deadlock" "writer[0] in_reset[0]" -DUSER_COPY_LOCKED

holds ranges.pml "ranges: suspended, resumed, released and unmapped as domains come and go"
holds ranges.pml "ranges: of two devices, three of them" -DTWO -DNR=3
holds ranges.pml "ranges: three of one device" -DNR=3
holds ranges.pml "ranges: that are extended while they are suspended and resumed" -DEXTEND
holds ranges.pml "ranges: of three pieces" -DNR=1 -DSZ=3
holds ranges.pml "ranges: those that are unmapped may stay where they are in the list" \
	-DNR=3 -DSTAYS_BEHIND
holds ranges.pml "ranges: a section for each range in unmap does no harm" \
	-DTWO -DUNMAP_IN_ORDER
breaks ranges.pml "looking once whether the memory is away maps what is away" \
	"$(gone away_mapped)" "" -DLOOK_ONCE
breaks ranges.pml "unlinking in a later section leaves a mapping behind UNMAP_DMA" \
	"$(gone unlinked_mapped)" "" -DUNLINK_LATER
breaks ranges.pml "a loop that trusts its range uses a freed one" \
	"$(gone range_gone)" "" -DTRUST_RANGE
breaks ranges.pml "two loops that trust what was done map a piece twice" \
	"$(gone mapped_twice)" "" -DTRUST_DONE
breaks ranges.pml "a piece that failed in one domain stays in another" \
	"$(gone uneven)" "" -DNO_UNROLL
breaks ranges.pml "... and is not to be unmapped where it was not mapped" \
	"$(gone uneven)" "" -DUNROLL_ALL -DSZ=3
breaks ranges.pml "a range mapped by one call is half mapped when memory is short" \
	"$(gone uneven)" "" -DONE_CALL
breaks ranges.pml "unmapping what is not mapped takes a neighbour along" \
	"$(gone uneven)" "" -DUNMAP_HOLES -DTWO
breaks ranges.pml "an extended range that stays behind a complete one is not found" \
	"$(gone unsorted)" "" -DEXTENDED_STAYS -DEXTEND
breaks ranges.pml "... nor is a new one at the tail of the list" \
	"$(gone unsorted)" "" -DNEW_BEHIND
breaks ranges.pml "a domain that suspend passes over keeps memory that is away" \
	"$(gone away_mapped)" "" -DJOIN_UNSEEN
breaks ranges.pml "a domain that resume passes over lacks what is resumed" \
	"$(gone uneven)" "" -DJOIN_NO_RESUME
breaks ranges.pml "a piece is not for a domain that has not come so far" \
	"$(gone uneven)" "" -DJOIN_AHEAD
breaks ranges.pml "a domain that joins begins with nothing, whatever one before had" \
	"$(gone uneven)" "" -DJOIN_STALE
breaks ranges.pml "listing a domain before it joins takes it for a complete one" \
	"$(gone uneven)" "" -DJOIN_LATER
breaks ranges.pml "a domain that is emptied and then taken off the list is filled again" \
	"$(gone uneven)" "" -DFAIL_LATER
breaks ranges.pml "a domain that fails before it comes to the ranges has some of them" \
	"$(gone uneven)" "" -DFAIL_PLAIN
breaks ranges.pml "freeing a domain before it is off the list (stock) is used by a callback" \
	"$(gone domain_gone)" "" -DFREE_LISTED
breaks ranges.pml "a resume that failed and is not tried again leaves a range suspended" \
	"$(gone left_suspended)" "" -DNO_RETRY
breaks ranges.pml "ranges that stay when the last domain goes are in no domain" \
	"$(gone no_domain)" "" -DNO_LAST_DOMAIN

holds chain.pml "chain: one container, reopened device, reset, unbind" -DNI=1
holds chain.pml "chain: two containers and the device go while a reset walks" \
	-DNI=2 -DROUNDS=1 -DONE_OPEN
holds chain.pml "chain: a list under mem_lock does as well as SRCU" -DNI=1 -DLIST
holds chain.pml "chain: a resume that fails is tried again by the next that finds no reason" \
	-DNI=1 -DFAIL
breaks chain.pml "... but not if only a change of the mask calls the chain" \
	"$(gone left_suspended)" "" -DNI=1 -DFAIL -DRESUME_ONCE
breaks chain.pml "callback that takes iommu->lock deadlocks" \
	"$deadlock" "mem_lock iommu_lock[0]" -DCALLBACK_WAITS -DNI=1
breaks chain.pml "unregistering with range_lock held deadlocks" \
	"$deadlock" "mem_lock range_lock[0]" -DSYNC_LOCKED -DNI=1
breaks chain.pml "unregistering without a grace period frees what the walker uses" \
	"$(gone obj_freed)" "" -DNO_SYNC -DNI=1
breaks chain.pml "registration that does not hold the head uses a freed one" \
	"$(gone head_freed)" "" -DNO_HEAD_REF -DNI=1
breaks chain.pml "looking up the head without mem_lock frees it under the walker" \
	"$(gone '(head_freed|walker)')" "" -DHEAD_UNGUARDED -DNI=1
breaks chain.pml "registering when mmap_lock is dropped leaves a mapping" \
	"$(gone left_mapped)" "" -DREGISTER_LATE -DNI=1
breaks chain.pml "reading the mask before registering maps what is away" \
	"$(gone away_mapped)" "" -DMASK_FIRST -DNI=1
breaks chain.pml "a head that begins with an empty mask maps what is away" \
	"$(gone away_mapped)" "" -DMASK_IN_HEAD -DNI=1
breaks chain.pml "finding an object by its device gives a reopened device a dead one" \
	"$(gone dead_match)" "" -DMATCH_BY_DEVICE -DNI=1
breaks chain.pml "calling the chain after the device is disabled leaves a mapping" \
	"$(gone left_mapped)" "" -DKILL_LATE -DNI=1
breaks chain.pml "reaping a dead object that has ranges frees what UNMAP_DMA uses" \
	"$(gone obj_freed)" "" -DREAP_EARLY -DNI=1
breaks chain.pml "freeing an object in the callback frees what the container uses" \
	"$(gone obj_freed)" "" -DDROP_DEAD -DNI=1
breaks chain.pml "reclaiming memory with range_lock held deadlocks with a recovery" \
	"$deadlock" "mem_lock range_lock[0] recovering" -DRECLAIM_LOCKED -DNI=1

holds away.pml "away: commands, D3hot, low power, resets of vfio and of sysfs, a mapper" \
	-DCMD -DD3 -DPM -DOWN -DSYSFS -DMAP
holds away.pml "away: the same with an error and its recovery" \
	-DCMD -DPM -DOWN -DSYSFS -DMAP -DAER
holds away.pml "away: of devices that D3hot and resets leave without BARs" \
	-DCMD -DD3 -DOWN -DSYSFS -DMAP -DSOFT -DFLAKY
holds away.pml "away: of these, with an error and its recovery" \
	-DCMD -DD3 -DOWN -DSYSFS -DAER -DSOFT -DFLAKY
holds away.pml "away: hot reset of a device that others reset and one that is reopened" \
	-DND=2 -DCMD -DD3 -DSYSFS -DHOT -DCLOSE -DREOPEN
holds away.pml "away: two hot resets where no lock spans the devices" \
	-DND=2 -DCMD -DSYSFS -DHOT -DCLOSE -DREOPEN -DNO_DEV_SET
holds away.pml "away: saying nothing of memory that is not usable does no harm" \
	-DND=2 -DCMD -DSYSFS -DHOT -DCLOSE -DREOPEN -DBACK_ONLY
holds away.pml "away: a look that only ends an error is enough where BARs stay" \
	-DCMD -DD3 -DPM -DOWN -DSYSFS -DAER -DLOOK_CLEARS
breaks away.pml "... but not where D3hot, which a reset ends, takes them" \
	"$(gone stray)" "" -DLOOK_CLEARS -DD3 -DSYSFS -DSOFT
breaks away.pml "... nor where a reset does" \
	"$(gone stray)" "" -DLOOK_CLEARS -DCMD -DSYSFS -DFLAKY
breaks away.pml "reset_prepare that takes memory_lock deadlocks with vfio's own reset" \
	"$deadlock" "writer[0] device_lock[0]" -DPREPARE_LOCKS -DOWN
breaks away.pml "reset_prepare that takes memory_lock deadlocks with a config write" \
	"$deadlock" "writer[0] block_cfg[0]" -DPREPARE_LOCKS -DCMD -DSYSFS
breaks away.pml "hot resets that wait for memory_lock deadlock where no lock spans them" \
	"$deadlock" "writer[0] writer[1]" -DHOT_WAITS -DND=2 -DHOT -DNO_DEV_SET
breaks away.pml "one bit for resets and disabled memory lets one end the other" \
	"$(gone stray)" "" -DONE_BIT -DOWN -DSYSFS
breaks away.pml "the end of a reset is not that of disabled memory" \
	"$(gone stray)" "" -DDONE_ENABLES -DCMD -DSYSFS -DLOOK_CLEARS
breaks away.pml "... nor of low power" \
	"$(gone stray)" "" -DDONE_ENABLES -DPM -DSYSFS
breaks away.pml "calling the chain without mem_lock maps what is away" \
	"$(gone stray)" "" -DMASK_UNLOCKED -DOWN -DSYSFS
breaks away.pml "suspending after the memory is disabled is too late" \
	"$(gone stray)" "" -DSUSPEND_LATE -DCMD
breaks away.pml "enabling memory in low power (stock's dma-bufs) maps what goes to sleep" \
	"$(gone stray)" "" -DIGNORE_PM -DCMD -DPM
breaks away.pml "enabling memory in D3hot maps what is not there" \
	"$(gone stray)" "" -DIGNORE_D3 -DCMD -DD3
breaks away.pml "mapping because memory is enabled maps what is being reset" \
	"$(gone stray)" "" -DASK_ONLY -DSYSFS -DMAP
breaks away.pml "a failed write that resumes nothing (stock) leaves it suspended" \
	"$(gone left_suspended)" "" -DFAIL_SILENT -DCMD
breaks away.pml "low power exit that resumes nothing leaves it suspended" \
	"$(gone left_suspended)" "" -DPM_SILENT -DPM -DMAP
breaks away.pml "an open that does not look leaves what was said of a closed device" \
	"$(gone left_suspended)" "" -DOPEN_SILENT -DND=2 -DHOT -DCLOSE -DREOPEN
breaks away.pml "a resume that failed is to be tried again if there is no other reason" \
	"$(gone left_suspended)" "" -DRESUME_ONCE -DCMD
breaks away.pml "a release that empties the mask maps what is being reset" \
	"$(gone stray)" "" -DRELEASE_ALL -DSYSFS -DCLOSE -DREOPEN
breaks away.pml "an error that ends with any restoring of BARs maps what is reset next" \
	"$(gone stray)" "" -DLOST_RESTORED -DCMD -DAER
breaks away.pml "looking at BARs before mem_lock overlooks the error in between" \
	"$(gone stray)" "" -DLOST_EARLY -DCMD -DAER
breaks away.pml "reading BARs with mem_lock held, as users do, deadlocks with a reset" \
	"$deadlock" "block_cfg[0] mem_lock[0]" -DBARS_USER -DCMD -DSYSFS
breaks away.pml "an error that ends with a write only is not over when recovery is" \
	"$(gone left_suspended)" "" -DLOST_NO_RESUME -DCMD -DAER
breaks away.pml "a reset that ends without a look leaves what was seen during it" \
	"$(gone left_suspended)" "" -DDONE_BLIND -DOWN -DSYSFS
breaks away.pml "hot reset reads the config space of a device that is not open" \
	"$(gone config_gone)" "" -DCONFIG_CLOSED -DND=2 -DHOT -DCLOSE
breaks away.pml "... or, with no lock that spans the devices, of one that closes" \
	"$(gone config_gone)" "" -DFREE_UNLOCKED -DND=2 -DHOT -DCLOSE -DNO_DEV_SET

wait
report
[ "$printed" -eq "$count" ] || die "check $((printed + 1)) ended without a result"

[ "$count" -gt 0 ] || die "no check is called ${names[*]}"
ktap_end

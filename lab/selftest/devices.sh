# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: GPL-2.0
#
# Sourced by selftest.sh: the selftests take no device that was not named, and put back
# what they took.  The user's driver here is pci-stub, on the network card of the guest.

kernel=$KERNELS/stock programs=$KERNELS/selftests
cat > "$work/devices" <<-'EOF_GUEST'
	#!/bin/sh
	# What every device is with: its driver, and what sysfs says of it
	state()
	{
		for device in /sys/bus/pci/devices/*; do
			driver=$(readlink "$device/driver")
			echo "${device##*/} ${driver##*/} $(cat "$device/driver_override" \
				"$device/numa_node" | tr '\n' ' ')"
		done
	}

	# Does everything come to be as it was, within so many seconds?
	back()
	{
		for second in $(seq 0 "$1"); do
			[ "$second" = 0 ] || sleep 1
			state > now
			if cmp -s before now; then
				echo back
				return
			fi
		done
		echo gone
		diff before now
		# For what is tested next
		tests | xargs kill -9 2>/dev/null
		sleep 3
		echo "$card" > "/sys/bus/pci/devices/$card/driver/unbind"
		take
	}

	take()
	{
		echo pci-stub > "/sys/bus/pci/devices/$card/driver_override"
		echo "$card" > /sys/bus/pci/drivers/pci-stub/bind
		state > now
	}

	# The processes of the test: quickly, for it does not wait
	tests()
	{
		for process in /proc/[0-9]*; do
			read -r comm < "$process/comm" && [ "$comm" = vfio_mmap_test ] &&
				echo "${process#/proc/}"
		done 2>/dev/null
	}

	# Have the card be in the midst of 20 resets
	start()
	{
		: > log
		VFIO_SELFTESTS_BDF=$card ./vfio_mmap_test > log 2>&1 &
		program=$!
		turns=300
		until grep -q 'RUN .*e1000e.faults_wait_for_a_reset' log || [ $((turns -= 1)) = 0 ]; do
			sleep 0.1
		done
		sleep 0.3
		processes=$(tests | tr '\n' ' ')
	}

	for device in /sys/bus/pci/devices/*; do
		[ "$(cat "$device/vendor" "$device/device" | tr '\n' ' ')" != "0x8086 0x10d3 " ] ||
			card=${device##*/}
	done
	all=$VFIO_SELFTESTS_BDF
	unset VFIO_SELFTESTS_BDF
	take
	state > before
	echo "card-is-with $(grep "^$card" before)"

	./vfio_mmap_test > log 2>&1
	echo "unnamed-status $?"
	echo "unnamed-run $(grep '^ok' log | grep -cvi skip)"
	echo "unnamed-skip $(grep -m 1 -o 'needs .*' log)"
	echo "unnamed-state $(back 0)"

	VFIO_SELFTESTS_BDF=$card ./vfio_mmap_test > log 2>&1
	echo "named-status $?"
	echo "named-run $(grep '^ok' log | grep -cvi skip)"
	echo "named-failed $(grep -c '^not ok' log)"
	echo "named-state $(back 0)"
	cp log log.named
	VFIO_SELFTESTS_BDF="$all" ./vfio_mmap_test "$card" > log 2>&1
	echo "argument-status $?"
	[ "$(grep -ci skip log)" != "$(grep -ci skip log.named)" ] || echo argument-alone
	echo "argument-state $(back 0)"

	start
	kill -9 $processes && echo "killed $(echo "$processes" | wc -w) processes"
	echo "killed-state $(back 10)"
	start
	kill -9 $program && echo "orphaned $(echo "$processes" | wc -w) processes"
	sleep 1
	echo "orphaned-left $(tests | wc -w)"
	echo "orphaned-state $(back 10)"
	start
	kill -TERM $program && echo "terminated $(echo "$processes" | wc -w) processes"
	./vfio_mmap_test "$card" > log 2>&1
	echo "terminated-next-status $?"
	echo "terminated-state $(back 0)"

	# Bound for an override that is no longer there
	echo > "/sys/bus/pci/devices/$card/driver_override"
	state > before
	VFIO_SELFTESTS_BDF=$card ./vfio_mmap_test > log 2>&1
	echo "cleared-status $?"
	echo "cleared-state $(back 0)"

	VFIO_SELFTESTS_BDF="$card eth0" ./vfio_mmap_test > log 2>&1
	echo "word-status $? lines $(wc -l < log) $(cat log)"
	./vfio_mmap_test ffff:77:00.0 > log 2>&1
	echo "absent-status $? lines $(wc -l < log) $(cat log)"
	echo "bad-state $(back 0)"
EOF_GUEST
chmod +x "$work/devices"

if [[ -s $kernel/bzImage && -s $kernel/modules/order && -x $programs/vfio_mmap_test ]]; then
	expect 'devices: a guest' 0 'bad-state' \
		"$VMTEST" -t 900 -f "$programs/vfio_mmap_test" "$kernel" -- "$work/devices"
	tr -d '\r' < "$work/said" > "$work/devices.said"
	sed 's/^/# /' "$work/devices.said"

	devices_say()
	{
		expect "devices: $1" 0 "$2" cat "$work/devices.said"
	}
	devices_say 'there is one that a driver has' '^card-is-with .* pci-stub pci-stub '
	devices_say 'none is tested that was not named' '^unnamed-run 0$'
	devices_say 'and that is no failure' '^unnamed-status 0$'
	devices_say 'a test that skips says what to do' '^unnamed-skip needs .* among VFIO_SELFTESTS_BDF'
	devices_say 'none is touched that was not named' '^unnamed-state back$'
	devices_say 'one that was named is tested' '^named-run [1-9]'
	devices_say 'with success' '^named-failed 0$'
	devices_say 'and with no status but that' '^named-status 0$'
	devices_say 'it is put back' '^named-state back$'
	devices_say 'with arguments the environment is not looked at' '^argument-alone$'
	devices_say 'nor touched' '^argument-state back$'
	devices_say 'a test is at work when it is killed' '^killed [2-9] processes$'
	devices_say 'its device is put back' '^killed-state back$'
	devices_say 'one is at work when only its program is killed' '^orphaned [2-9] processes$'
	devices_say 'it does not go on' '^orphaned-left 0$'
	devices_say 'the device is put back then too' '^orphaned-state back$'
	devices_say 'another is terminated at work' '^terminated [2-9] processes$'
	devices_say 'the next program waits for that' '^terminated-next-status 0$'
	devices_say 'and finds what was there before' '^terminated-state back$'
	devices_say 'one bound for an override that is gone is tested' '^cleared-status 0$'
	devices_say 'and put back as it was' '^cleared-state back$'
	devices_say 'a name that is no address is one line' \
		"^word-status 1 lines 1 .*'eth0' is not the address"
	devices_say 'so is one of no device' '^absent-status 1 lines 1 .*no PCI device ffff:77:00.0$'
	devices_say 'and nothing is touched' '^bad-state back$'
else
	skip devices "no stock $BASE in $kernel, or no selftests in $programs"
fi

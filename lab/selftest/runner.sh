# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# The runner
#
kernel=$KERNELS/stock
printf '#!/bin/sh\nexit 0\n' > "$work/true"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$1"; exit 3\n' > "$work/three"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$(readlink "/sys/bus/pci/devices/$2/driver") $1"\n' > "$work/bound"
printf '#!/bin/sh\necho "WARNING: not really" > /dev/kmsg\n' > "$work/warn"
printf '#!/bin/sh\necho "Oops: not really" > /dev/kmsg; kill -9 $$\n' > "$work/oops"
printf '#!/bin/sh\nkill -9 $$\n' > "$work/killed"
printf '#!/bin/sh\necho waiting; sleep 1000\n' > "$work/hang"
chmod +x "$work"/{true,three,bound,warn,oops,killed,hang}

expect 'vmtest.sh: bad usage' 127 'expected KERNEL' "$VMTEST"
expect 'vmtest.sh: an unknown option' 127 'unknown option -x' "$VMTEST" -x
expect 'vmtest.sh: an option without its value' 127 'needs a value' "$VMTEST" -c
expect 'vmtest.sh: a bad number' 127 'not a positive number' "$VMTEST" -c two /tmp -- "$work/true"
expect 'vmtest.sh: a bad ID' 127 'not VENDOR:DEVICE' "$VMTEST" -b edu /tmp -- "$work/true"
expect 'vmtest.sh: no kernel' 127 'no bzImage' "$VMTEST" "$work" -- "$work/true"
if [[ -s $kernel/bzImage && -s $kernel/modules/order ]]; then
	mkdir -p "$work/half/modules"
	echo x > "$work/half/bzImage"
	echo gone.ko > "$work/half/modules/order"
	expect 'vmtest.sh: half a kernel' 127 'gone.ko: missing' "$VMTEST" "$work/half" -- "$work/true"
	expect 'vmtest.sh: no program' 127 'no such program' "$VMTEST" "$kernel" -- "$work/none"
	expect 'vmtest.sh: no QEMU' 127 'qemu-none: not installed' "$VMTEST" -q qemu-none "$kernel" -- "$work/true"
	expect 'vmtest.sh: a QEMU that fails' 126 'QEMU ended' "$VMTEST" -q false "$kernel" -- "$work/true"
	expect 'vmtest.sh: a device that QEMU does not know' 126 'no-such-device' \
		"$VMTEST" -d no-such-device "$kernel" -- "$work/true"
	expect 'vmtest.sh: the status and output of the program' 3 "^it's \"here\" *\\\$x" \
		"$VMTEST" -n "$kernel" -- "$work/three" "it's \"here\"  \$x"
	expect 'vmtest.sh: an image' 3 '^alone' "$VMTEST" -n "$kernel/bzImage" -- "$work/three" alone
	mkdir -p "$work/built/arch/x86/boot"
	ln -s "$kernel/bzImage" "$work/built/arch/x86/boot/"
	expect 'vmtest.sh: a kernel tree' 3 '^tree' "$VMTEST" -n "$work/built" -- "$work/three" tree
	expect 'vmtest.sh: a device for the program' 0 '/vfio-pci.*first' \
		"$VMTEST" -b 1234:11e8 "$kernel" -- "$work/bound" first
	expect 'vmtest.sh: a warning in the guest' 125 'WARNING: not really' "$VMTEST" -n "$kernel" -- "$work/warn"
	expect 'vmtest.sh: a splat goes before a status' 125 'Oops: not really' "$VMTEST" -n "$kernel" -- "$work/oops"
	expect 'vmtest.sh: a program that is killed' 123 'by signal 9' "$VMTEST" -n "$kernel" -- "$work/killed"
	expect 'vmtest.sh: a guest that panics' 125 'Kernel panic' \
		env VMTEST_APPEND=rdinit=/nonexistent "$VMTEST" -n "$kernel" -- "$work/true"
	expect 'vmtest.sh: a guest that hangs' 124 'no end after 15 seconds' \
		"$VMTEST" -n -t 15 "$kernel" -- "$work/hang"
else
	skip vmtest.sh "no stock $BASE in $kernel"
fi

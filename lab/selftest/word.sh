# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# What is misspelt is refused at once, and what is said is enough to go on with.

for target in help run matrix bench test deps fetch compose writeback series mail stock patched build \
	selftests check spin proof bisect clean distclean; do
	expect "make $target BASE=9.9" 2 "unknown BASE '9.9'.* 0.1" in_make $target BASE=9.9
done
expect 'make test ONLY=typo' fail 'ONLY=typo: there is no such thing; there are: .*spin' in_make test BASE=0.1 ONLY=typo
expect 'make proof ONLY=typo' fail 'ONLY=typo: there is no such thing; there are: ' in_make proof BASE=0.1 ONLY=typo
for size in 3G 16 0G 1M 512G; do
	expect "make bench LARGE=$size" fail "LARGE=$size: .* give a power of two" in_make bench BASE=0.1 LARGE=$size
done
expect 'make run DEBUG=2' fail 'DEBUG=2: give 1, or nothing' in_make run BASE=0.1 DEBUG=2
expect 'make run FLAVOR=base' fail "unknown FLAVOR 'base'" in_make run BASE=0.1 FLAVOR=base
expect 'a CDPATH changes nothing' 0 "unknown BASE '9.9'" bash -c "cd '$project/..' && ! CDPATH=. '$project/lab/build.sh' 9.9 stock"
expect 'lab/selftest.sh ONLY=typo' fail 'ONLY=typo: there is no such thing' env ONLY=typo "$project/lab/selftest.sh" 0.1
expect 'make run JOBS=two' fail 'JOBS=two: not a number' in_make run BASE=0.1 JOBS=two
expect 'make run FLAVOR=sweet' fail "unknown FLAVOR 'sweet'" in_make run BASE=0.1 FLAVOR=sweet

expect 'make help has all targets' 0 '^$' bash -c "
	make -s -C '$project' help > '$work/help'
	for target in \$(sed -n '/^targets :=/,/[^\\\\]\$/p' '$project/Makefile' | tr -d '\\\\' | sed 's/targets :=//'); do
		grep -qE \"^make (.* )?\$target([ \t]|\\\$)\" '$work/help' || echo \"missing: \$target\"
	done
	echo"

# Ctrl-C, at a terminal, while make waits for a script that waits for a script
cat > "$work/ctrl-c.py" <<-'EOF'
	import os, pty, signal, sys, time
	pid, fd = pty.fork()
	if not pid:
	    # What runs this in the background may have told it to ignore it
	    signal.signal(signal.SIGINT, signal.SIG_DFL)
	    os.execvp(sys.argv[1], sys.argv[1:])
	out = b""
	while b"unpacking" not in out and b"waiting" not in out:
	    out += os.read(fd, 4096)
	time.sleep(1)
	os.write(fd, b"\x03")
	try:
	    while more := os.read(fd, 4096):
	        out += more
	except OSError:
	    pass
	status = os.waitpid(pid, 0)[1]
	print(out.decode().split("\x03")[-1].split("^C")[-1].replace("\r", "\n").strip())
	print("status", "ok" if not status else "not ok")
EOF
if command -v python3 > /dev/null; then
	exec {busy}>> "$CACHE/lock-src-0.1"
	flock "$busy"
	interrupted()
	{
		fresh env KERNEL_SRC="$kernel" timeout 120 python3 "$work/ctrl-c.py" make -C "$project" run BASE=0.1
	}
	expect 'Ctrl-C' 0 . bash -c "$(declare -f fresh interrupted); work='$work' kernel='$kernel' project='$project'; interrupted | tee '$work/ctrl-c.out'"
	expect 'is one line' 0 '^lab: interrupted; run the same command again to go on 1$' \
		bash -c "grep -v ^status '$work/ctrl-c.out' | tr '\n' ' '; grep -vc ^status '$work/ctrl-c.out'"
	expect 'and no success' 0 '^status not ok$' cat "$work/ctrl-c.out"
	exec {busy}>&-
else
	skip Ctrl-C 'no python3'
fi

# How far a long step is
cat > "$work/long.sh" <<-EOF
	. "$project/lab/lib.sh"
	SECONDS=0
	step() { for i in 1 2 3; do echo "line \$i"; done; sleep 17; }
	STEPS=40
	progress working "$work/long.log" step
EOF
expect 'a long step says how far it is, of how many' 0 'working: 1[5-9] s, 3 of about 40 lines of log' bash "$work/long.sh"

# A damaged pack
damage()
{
	local pack

	pack=$(find "$(on_kernel fetch 0.1)/.git/objects/pack" -name '*.pack')
	chmod u+w "$pack"
	printf 'damaged damaged damaged damaged' | dd of="$pack" bs=1 seek=12 conv=notrunc 2> /dev/null
	rm -rf "$tree"
}
on_kernel compose 0.1 > /dev/null 2>&1
damage
expect 'a damaged source says what to remove' fail "is damaged; remove it.*rm -rf" on_kernel compose 0.1
rm -rf "${CACHE:?}"/src/* "$tree"

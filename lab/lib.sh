# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What every command of the lab shares: where things are, what a base is, how a
# long step shows that it is alive, and how two runs keep out of each other's way.

set -euo pipefail
export LC_ALL=C
umask 022
unset MAKEFLAGS MFLAGS MAKELEVEL CDPATH TAR_OPTIONS
# What a kernel developer may have set for a kernel of theirs
unset CROSS_COMPILE LLVM LLVM_IAS KCFLAGS KCPPFLAGS KAFLAGS HOSTCFLAGS HOSTLDFLAGS \
	KBUILD_OUTPUT KBUILD_EXTMOD W C CFLAGS LDFLAGS INSTALL_MOD_PATH

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OWN_CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vfio-devmem
OWN_BUILD=$TOP/build
CACHE=${CACHE:-$OWN_CACHE}
BUILD=${BUILD:-$OWN_BUILD}
JOBS=${JOBS:-$(nproc)}
FLAVOR=${FLAVOR:-debug}
ARCH=x86_64

# What is in a folder that the lab made: it tells it from others, and is locked by
# whoever works there.
readonly MARK=.vfio-lab

SELFTESTS=tools/testing/selftests/vfio
# shellcheck disable=SC2034
VMTEST=$TOP/linux/$SELFTESTS/vmtest.sh

say()
{
	echo "lab: $*" >&2
}

die()
{
	echo "lab: error: $*" >&2
	exit 1
}

# Of git's configuration the lab takes who the user is, and nothing else: what it commits,
# formats and compares is the same for everybody.
plain_git()
{
	local name

	if [[ -z ${LAB_GIT:-} ]]; then
		while read -r name; do
			[[ $name == GIT_CONFIG_GLOBAL || $name == GIT_CONFIG_NOSYSTEM ]] || unset "$name"
		done < <(compgen -e GIT_)
		LAB_NAME=$(git -C "$TOP" config user.name 2>/dev/null) || LAB_NAME=
		LAB_EMAIL=$(git -C "$TOP" config user.email 2>/dev/null) || LAB_EMAIL=
		export LAB_NAME LAB_EMAIL LAB_GIT=1
	fi
	while read -r name; do
		unset "$name"
	done < <(compgen -e GIT_)
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1
	# Files of the first two are found in places of their own, too; trees may be of another
	# user's, and the configuration of a tree is its user's
	export GIT_CONFIG_COUNT=0
	for name in core.attributesFile=/dev/null core.excludesFile=/dev/null safe.directory='*' \
		format.subjectPrefix=PATCH format.coverLetter=false format.signOff=false \
		format.useAutoBase=false diff.noprefix=false diff.mnemonicPrefix=false \
		diff.context=3 diff.interHunkContext=0 commit.gpgSign=false; do
		export "GIT_CONFIG_KEY_$GIT_CONFIG_COUNT=${name%%=*}" \
			"GIT_CONFIG_VALUE_$GIT_CONFIG_COUNT=${name#*=}"
		GIT_CONFIG_COUNT=$((GIT_CONFIG_COUNT + 1))
	done
	# Whose name is on what the lab commits for itself
	export GIT_AUTHOR_NAME=lab GIT_AUTHOR_EMAIL=lab@localhost
	export GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@localhost
}
! command -v git >/dev/null || plain_git

# The kernels that there is a series for, the oldest first
bases()
{
	(cd "$TOP/series" && printf '%s\n' */base.conf) | sed 's,/base\.conf$,,' | sort -V
}

# shellcheck disable=SC2034	# read by the commands
load_base()
{
	BASE=${1:-}
	[[ $BASE =~ ^[A-Za-z0-9._-]+$ && -f $TOP/series/$BASE/base.conf ]] ||
		die "unknown BASE '$BASE'; this project has: $(bases | paste -s -d ' ')"

	SERIES=$TOP/series/$BASE
	OUT=$BUILD/$BASE
	TREE=$OUT/tree
	# What is built of it, for each flavor beside the others
	KERNELS=$OUT
	[[ $FLAVOR == debug ]] || KERNELS=$OUT/$FLAVOR
	LOGS=$KERNELS/logs
	KERNEL=$BASE DEBIAN_PACKAGE='' DEBIAN_SUITES='' DEBIAN_RELEASE='' MIN_VERSION='' EXTRA_CONFIG='' BUILD_LINES='' CHECK_X86_64='' CHECK_ARM64=''
	# shellcheck source=/dev/null
	. "$SERIES/base.conf"
	[[ $JOBS =~ ^[1-9][0-9]*$ ]] || die "JOBS=$JOBS: not a number of processes"
	[[ $FLAVOR == debug || $FLAVOR == release ]] ||
		die "unknown FLAVOR '$FLAVOR'; lab/config has debug and release"

	CACHE=$(absolute "$CACHE")
	BUILD=$(absolute "$BUILD")
	apart
	check_kernel_src
	claim CACHE
	claim BUILD
	writable "$LOGS" ||
		die "cannot write to $LOGS; set BUILD= to a folder that can be written"
	: >> "$OUT/$MARK"
}

# One in the other would be the other's to remove.
apart()
{
	[[ $CACHE/ != "$BUILD"/* && $BUILD/ != "$CACHE"/* ]] ||
		die "CACHE=$CACHE and BUILD=$BUILD: give two folders, neither of them in the other"
}

# Is it a folder that the lab made?  One of its own names may be older than the mark.
is_ours()
{
	[[ -f $1/$MARK || $1 == "$OWN_CACHE" || $1 == "$OWN_BUILD" ]]
}

# claim VARIABLE: the folder that it names is new, empty, or the lab's already.  It is this
# command's to work in until it ends, beside others: only clean.sh waits for them, and
# takes the mark away, so it is looked at again once it is locked.
claim()
{
	local dir=${!1} mark=${!1}/$MARK fd

	[[ $dir != *[[:space:]:]* ]] ||
		die "$1=$dir: the kernel's make does not work in a folder with a blank or a colon in its name"
	while :; do
		writable "$dir" || die "cannot write to $dir; set $1= to a folder that can be written"
		if [[ ! -f $mark ]]; then
			[[ -z $(ls -A "$dir") ]] || is_ours "$dir" ||
				die "$dir is not empty, and the lab did not make it; set $1= to a new folder"
			echo 'Made by the lab, which removes what it put here: make clean, make distclean' >> "$mark" ||
				die "cannot write $mark: disk full?"
		fi
		{ exec {fd}< "$mark"; } 2>/dev/null || continue
		flock -s "$fd" || die "cannot lock $mark"
		[[ ! $mark -ef /proc/self/fd/$fd ]] || return 0
		exec {fd}<&-
	done
}

# What a Makefile says that the kernel's version is
version_in()
{
	awk '$1 == "VERSION" { v = $3 } $1 == "PATCHLEVEL" { p = $3 } $1 == "SUBLEVEL" { s = $3 }
	     v != "" && p != "" && s != "" && !done { print v "." p "." s; done = 1 }'
}

# Is it a kernel, and one of this base?  Before anything is unpacked or given up for it.
check_kernel_src()
{
	local version

	[[ -n ${KERNEL_SRC:-} ]] || return 0
	[[ -e $KERNEL_SRC ]] || die "KERNEL_SRC=$KERNEL_SRC: no such tree or tarball"
	KERNEL_SRC=$(absolute "$KERNEL_SRC")
	export KERNEL_SRC
	# Parents that have looked need not be asked again
	[[ ${LAB_KERNEL_SRC:-} != "$BASE $KERNEL_SRC" ]] || return 0
	if [[ -d $KERNEL_SRC ]]; then
		version=$(version_in 2>/dev/null < "$KERNEL_SRC/Makefile") || :
	else
		need_unpacker "$KERNEL_SRC"
		# tar is not done when it has found it
		version=$(tar -xOf "$KERNEL_SRC" --wildcards --no-wildcards-match-slash --occurrence=1 \
			'*/Makefile' 2>/dev/null | version_in) || :
	fi
	[[ -n $version || -d $KERNEL_SRC ]] || tar -tf "$KERNEL_SRC" >/dev/null 2>&1 ||
		die "KERNEL_SRC=$KERNEL_SRC cannot be unpacked: it is damaged, or no tarball"
	[[ -n $version ]] ||
		die "KERNEL_SRC=$KERNEL_SRC: this is not the source of a Linux kernel; give its tree, or a tarball of it"
	[[ $version == "$KERNEL".* ]] ||
		die "KERNEL_SRC=$KERNEL_SRC is Linux $version, and the series is for $KERNEL; give BASE= that is nearest, and a kernel of it (this project has: $(bases | paste -s -d ' '))"
	export LAB_KERNEL_SRC="$BASE $KERNEL_SRC"
}

# Not on every system there is what unpacks a tarball.
need_unpacker()
{
	local tool=

	case $1 in
	*.xz|*.txz)	tool=xz ;;
	*.gz|*.tgz)	tool=gzip ;;
	*.bz2)		tool=bzip2 ;;
	*.zst)		tool=zstd ;;
	esac
	[[ -n $tool ]] && ! command -v "$tool" >/dev/null || return 0
	[[ $tool != xz ]] || "$TOP/lab/deps.sh" source || exit 1
	command -v "$tool" >/dev/null || die "$1 cannot be unpacked: $tool is not installed"
}

writable()
{
	mkdir -p "$1" 2>/dev/null && [[ -w $1 ]]
}

absolute()
{
	realpath -m -- "$1"
}

# Free space is checked before a step rather than after it has failed half way.
need_space()
{
	local dir=$1 mib=$2 what=$3 have

	have=$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')
	((have >= mib)) ||
		die "disk full: $what needs $mib MiB in $dir, $have MiB are free; make room or set CACHE= and BUILD="
}

# lock NAME: one run at a time beyond this point.  The lock goes with the process,
# and with whatever it started, so that an orphaned compiler still holds it.
lock()
{
	local file=$1 fd

	mkdir -p "$(dirname "$file")"
	{ exec {fd}>> "$file"; } 2>/dev/null || die "cannot write $file"
	if ! flock -n "$fd"; then
		say "another command is at work in ${file%/*} (${file##*/}); waiting for it"
		flock "$fd" || die "cannot lock $file"
	fi
}

running=
stop_running()
{
	if [[ -n $running ]]; then
		kill -TERM -- "-$running" 2>/dev/null || :
		wait "$running" 2>/dev/null || :
		running=
	fi
}

scratch_dirs=()
cleanup()
{
	stop_running
	if ((${#scratch_dirs[@]})); then
		rm -rf -- "${scratch_dirs[@]}"
	fi
}

# The command that was called by hand reports for those it called, and for make, which
# would add a line of its own about a failure.
ended()
{
	if [[ $LAB_SPEAKER == "$$" ]]; then
		printf '\r' >&2
		say "$1"
		if [[ $2 == 130 && $(cat /proc/$PPID/comm 2>/dev/null) == make ]]; then
			kill -INT "$PPID"
			exit 0
		fi
	fi
	exit "$2"
}
export LAB_SPEAKER=${LAB_SPEAKER:-$$}
# What may be dropped is what that command asks about, and nothing of those it calls.
[[ $LAB_SPEAKER == "$$" ]] || unset FORCE
for switch in FORCE REFRESH RESUME BOOT FRESH; do
	[[ ${!switch:-1} == 1 ]] || die "$switch=${!switch}: give 1, or nothing"
done
trap cleanup EXIT
trap 'ended "interrupted; run the same command again to go on" 130' INT
trap 'ended terminated 143' TERM HUP

# scratch VAR PARENT: a temporary directory that does not outlive the command.
scratch()
{
	local -n result=$1

	mkdir -p "$2"
	result=$(mktemp -d "$2/.tmp.${BASE:-lab}.XXXXXX") || die "cannot make a temporary directory in $2: disk full?"
	scratch_dirs+=("$result")
}

# Sets $cpu to the processor time, in seconds, of this shell and of all it has waited for.
cpu_time()
{
	local file=$LAB_STEPS.$BASHPID

	# A subshell would have times of its own
	times > "$file"
	cpu=$(awk '{ for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); sum += t[1] * 60 + t[2] } }
		   END { print sum }' "$file")
	rm -f "$file"
}

# timed NAME COMMAND...: a row of the table that make test prints at its end
timed()
{
	local name=$1 start=$SECONDS before cpu status

	shift
	if [[ -z ${LAB_STEPS:-} ]]; then
		"$@"
		return
	fi
	cpu_time
	before=$cpu
	"$@"
	status=$?
	cpu_time
	printf '%s\t%d\t%s\t%s\n' "$name" $((SECONDS - start)) "$before" "$cpu" >> "$LAB_STEPS"
	return "$status"
}

# progress LABEL LOG COMMAND...: run it with its output in LOG and say every few
# seconds that it lives, and how far it is: by the lines of its log, of the $STEPS that
# there are likely to be, or as the function $HOW_FAR says.  COMMAND may be a function,
# and must return its failures itself: errexit is off in it.
STEPS='' HOW_FAR=''
progress()
{
	local label=$1 log=$2 start=$SECONDS next=$((SECONDS + 15)) status=0
	local steps=$STEPS how_far=${HOW_FAR:-log_lines}

	STEPS='' HOW_FAR=''
	shift 2
	mkdir -p "$(dirname "$log")"
	say "$label ..."
	set -m
	"$@" > "$log" 2>&1 < /dev/null &
	running=$!
	set +m
	while kill -0 "$running" 2>/dev/null; do
		sleep 0.2
		if ((SECONDS >= next)); then
			next=$((SECONDS + 15))
			say "$label: $((SECONDS - start)) s, $("$how_far" "$log")"
		fi
	done
	wait "$running" || status=$?
	running=
	if ((status == 0)); then
		say "$label: done in $((SECONDS - start)) s"
	elif grep -q 'No space left on device' "$log"; then
		die "$label: disk full; make room and run the same command again"
	fi
	return "$status"
}

log_lines()
{
	local last

	last=$(tail -n 1 "$1" 2>/dev/null | tr -d '\r' | tr -s ' \t' ' ' | cut -c 1-60)
	echo "$(wc -l < "$1")${steps:+ of about $steps} lines of log${last:+; ${last# }}"
}

# The first lines of a log that look like the reason.
reason()
{
	grep -E -m 3 'error:|Error [0-9]|\*\*\*|fatal:|undefined reference|not found' "$1" ||
		tail -n 3 "$1"
}

use_ccache()
{
	if command -v ccache >/dev/null; then
		export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
		# What is not in the cache is preprocessed once, not twice
		export CCACHE_DEPEND=1
		CC='ccache gcc'
	else
		CC=gcc
	fi
}

# Everything that would make two builds of one source differ is pinned.
kernel_make()
{
	make -C "$1" ARCH="$ARCH" O="obj-$FLAVOR" CC="$CC" LOCALVERSION= \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "${@:2}"
}

# Is there anything in a composed tree that compose.sh did not put there?  A changed file,
# a new one even if git is told to ignore it, a commit on whatever branch, a stash.  Sets
# $edit to one of them.
edited()
{
	local commit

	edit='what it was composed to is not known'
	commit=$(cat "$1/.git/lab/commit" 2>/dev/null) || return 0
	edit=$(git -C "$1" status --porcelain --ignored | grep -vE '^!! obj-(debug|release)/$' |
		sed -n '1s/^...//p') || :
	[[ -z $edit ]] || return 0
	edit='commits that are not written back'
	[[ $(git -C "$1" rev-parse HEAD) == "$commit" ]] || return 0
	edit=$(git -C "$1" for-each-ref --format='%(refname)' --no-merged "$commit" | head -n 1)
	[[ -n $edit ]]
}

# The names of the sets of patches that the order has
sets()
{
	sed -n 's/^set[[:space:]]\+//p' "$SERIES/order"
}

known_set()
{
	[[ -n $1 ]] || die "which set of patches? give SET=, one of: $(sets | paste -s -d ' ')"
	sets | grep -qxF -- "$1" || die "SET=$1: there is no such set in series/$BASE/order; there are: $(sets | paste -s -d ' ')"
}

# the_set NAME: sets $from and $to to the commits of $TREE before its patches, and with them
the_set()
{
	local first last all commits

	known_set "$1"
	read -r first last all < <(awk -v name="$1" '
		/^(#|$)/ { next }
		$1 == "set" { here = $2 == name; next }
		{ n++ }
		here { last = n; first = first ? first : n }
		END { print first + 0, last + 0, n }' "$SERIES/order")
	mapfile -t commits < <(git -C "$TREE" rev-list --reverse base..HEAD)
	((${#commits[@]} == all)) || die "$TREE has other patches than series/$BASE/order; run make writeback first"
	((last)) || die "set $1 of series/$BASE/order has no patches"
	# shellcheck disable=SC2034	# read by the commands
	from=$(git -C "$TREE" rev-parse "${commits[first - 1]}^") to=${commits[last - 1]}
}

# What a tree was composed from, to know later what has been changed since, and where.
remember_given()
{
	local given=$TREE/.git/lab/given

	rm -rf "$given"
	mkdir -p "$given/series"
	cp -r "$SERIES" "$given/series/"
	cp -r "$TOP/linux" "$given/"
}

sums()
{
	(cd "$1" && find . ! -type d -print0 | sort -z | xargs -0 -r sha256sum 2>/dev/null) || :
}

# Has nobody put anything into a folder for mail since the lab wrote it?
untouched()
{
	[[ -n ${FORCE:-} || $(sums "$1") == "$(cat "${1%/*}/.sums-${1##*/}" 2>/dev/null)" ]] ||
		die "$1 is not as the lab wrote it; move what was changed away, FORCE=1 drops it"
}

# replace_folder NEW OLD: NEW takes the place of OLD.
replace_folder()
{
	local new=$1 old=$2

	if [[ -d $old ]]; then
		untouched "$old"
		mv "$old" "$new.old"
	fi
	sums "$new" > "${old%/*}/.sums-${old##*/}"
	mv "$new" "$old"
	rm -rf "$new.old"
}

# adopt_objects FROM TO PLACE: give the tree TO, which will be moved to PLACE, the
# objects of the build in FROM, made newer than its files and told where they are, so
# that building it compiles what differs from FROM, no more.
adopt_objects()
{
	local from=$1 obj=$2/obj-$FLAVOR place=$3

	[[ -f $from/obj-$FLAVOR/.complete ]] || return 0
	cp -a --reflink=auto "$from/obj-$FLAVOR" "$obj" || return 1
	rm -f "$obj/.complete" || return 1
	touch "$obj/.config" || return 1
	grep -rlIZ --include='.*.cmd' --include='*.d' -F "$from/" "$obj" |
		xargs -0 -r sed -i "s|$from/|$place/|g" || return 1
	find "$obj" -type f -print0 | xargs -0 -r touch -r "$obj/.config"
}

# A source of Debian's that went wrong: the words for it in a log of apt-get's
why_apt_failed()
{
	if grep -qE '[Rr]esolv|[Cc]ould not connect|Connection (failed|refused|timed out)|unreachable' "$1"; then
		echo "no network, or $2 does not answer; check it, and run the same command again"
	elif grep -qE 'Hash Sum mismatch|unexpected size|corrupted' "$1"; then
		echo "the download from $2 is damaged; run the same command again"
	elif grep -qE 'Unable to locate package|does not have a Release|404' "$1"; then
		echo "$2 does not have it; is apt configured with a mirror of Debian?"
	elif grep -q 'Could not get lock' "$1"; then
		echo "another apt-get is at work; run the same command again when it is done"
	else
		grep -E '^[EW]:' "$1" | head -n 1 || echo "apt-get failed, see $1"
	fi
}

# build_programs VARIANT...: builds these kernels and the selftests for them, and sets
# $programs to the folder of the latter
build_programs()
{
	local variant

	for variant; do
		"$TOP/lab/build.sh" "$BASE" "$variant" >/dev/null || return 1
	done
	# shellcheck disable=SC2034	# read by the commands
	programs=$("$TOP/lab/selftests.sh" "$BASE" "$@")
}

# clone_patched DIR COMMIT: a second clone of the patched tree, with its objects, to
# build others of its commits in
clone_patched()
{
	local dir=$1 commit=$2

	rm -rf "$dir" "$dir.new" || return 1
	git clone -q --local --no-checkout -o source "$TREE" "$dir.new" || return 1
	echo '/obj-*/' >> "$dir.new/.git/info/exclude" || return 1
	git -C "$dir.new" checkout -q -f --detach "$commit" || return 1
	adopt_objects "$TREE" "$dir.new" "$dir" || return 1
	mv -T "$dir.new" "$dir"
}

compile_clone()
{
	kernel_make "$1" -j"$JOBS" bzImage modules
}

# publish_clone CLONE DIR: the kernel image and the modules that come of a clone, and
# the load order of the patched kernel
publish_clone()
{
	local clone=$1 dir=$2 ko

	rm -rf "$dir"
	mkdir -p "$dir/modules"
	cp "$clone/obj-$FLAVOR/arch/x86/boot/bzImage" "$dir/"
	# modules.order has .ko names, or .o names on newer kernels.
	while read -r ko; do
		cp "$clone/obj-$FLAVOR/${ko%.*}.ko" "$dir/modules/"
	done < "$clone/obj-$FLAVOR/modules.order"
	cp "$KERNELS/patched/modules/order" "$dir/modules/order"
}

# The version of the kernel that a guest's log is of
guest_version()
{
	tr -d '\r' < "$1" | sed -nE 's/.*Linux version ([0-9.]+).*/\1/p' | head -n 1
}

# The names and groups that lab/tests.list has
test_words()
{
	awk -F '|' '!/^#/ && NF > 2 { print $1, $2 }' "$TOP/lab/tests.list" | tr -s ' ' '\n' |
		sed 's/@.*//' | grep . | sort -u
}

# known WORD LIST: ends the command if WORD is not in LIST, a word a line
known()
{
	grep -qxF -- "$1" <<< "$2" || die "ONLY=$1: there is no such thing; there are: $(paste -s -d ' ' <<< "$2")"
}

# $1 without the blanks around it, as a field of one of the lab's lists
trim()
{
	sed 's/^[[:space:]]*//; s/[[:space:]]*$//' <<< "$1"
}

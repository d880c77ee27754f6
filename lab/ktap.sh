# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# How everything here reports what it has tested: KTAP, and a sum as the last line.  Sourced.
#
#	ktap_begin
#	result STATUS NAME [FILE]	for each thing tested
#	ktap_end
#
# KTAP's comments ("# ...") may stand between results.

passed=0 failed=0 skipped=0

ktap_begin()
{
	echo "KTAP version 1"
}

# result STATUS NAME [FILE]: STATUS is 0 or ok, or skip, or else a failure.  FILE says why
result()
{
	local word=ok why=

	case $1 in
	0|ok)
		passed=$((passed + 1))
		;;
	skip)
		skipped=$((skipped + 1))
		why=" # SKIP $(head -n 1 "${3:-/dev/null}")"
		;;
	*)
		word='not ok'
		failed=$((failed + 1))
		;;
	esac
	echo "$word $((passed + failed + skipped)) - $2${why%" "}"
	[[ $word == ok || -z ${3:-} ]] || sed -n '1,40s/^/# /p' "$3"
}

# Fails if anything has
ktap_end()
{
	echo "1..$((passed + failed + skipped))"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}

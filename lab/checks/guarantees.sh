# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# The table of docs/guarantees.md, against the tests
check_guarantees()
{
	local status=0

	"$TOP/lab/check-guarantees.sh" > "$LOGS/guarantees.log" 2>&1 || status=1
	grep -v '^ok' "$LOGS/guarantees.log" > "$LOGS/guarantees.why" || :
	report "$status" "guarantees: docs/guarantees.md is true of the tests" "$LOGS/guarantees.why"
}

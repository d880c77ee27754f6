/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Newer harnesses run neither a test nor its teardown if the setup of the fixture skips.
 * Those that this is for run both.  Here the process that runs the test ends there: in a
 * function whose name ends in "_setup", be it the fixture's or what it calls.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdarg.h>
#include <string.h>

#include "../../kselftest_harness.h"

/* What the harness takes for a skip */
#define EXIT_SKIP	255

static inline void compat_skip(struct __test_metadata *_metadata, const char *function,
			       const char *fmt, ...)
{
	char *reason = _metadata->results->reason;
	size_t len = strlen(function);
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(_metadata->results->reason), fmt, args);
	va_end(args);
	fprintf(TH_LOG_STREAM, "#      SKIP      %s\n", reason);
	_metadata->passed = 1;
	_metadata->skip = 1;
	_metadata->trigger = 0;
	if (len > strlen("_setup") && !strcmp(function + len - strlen("_setup"), "_setup"))
		_exit(EXIT_SKIP);
}

#undef SKIP
#define SKIP(statement, fmt, ...) do {				\
	compat_skip(_metadata, __func__, fmt, ##__VA_ARGS__);	\
	statement;						\
} while (0)

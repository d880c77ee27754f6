/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the harness of newer kernels does, for those before 6.9.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "../../kselftest_harness.h"

/* What the harness takes for a skip */
#define EXIT_SKIP	255

/*
 * If the setup of a fixture skips, neither the test nor its teardown is run.  This harness
 * would run both, so the process ends there: in a function whose name ends in "_setup", be
 * it the fixture's own or one that it calls.
 */
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

/* What -f FIXTURE and -t TEST name is run, or all if there are none of these */
static inline bool compat_selected(const struct __test_metadata *t, int argc, char **argv)
{
	bool named = false;
	int i;

	for (i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "-f") && strcmp(argv[i], "-t"))
			continue;
		named = true;
		if (!strcmp(argv[i + 1], argv[i][1] == 'f' ? t->fixture->name : t->name))
			return true;
	}

	return !named;
}

static inline int compat_run(int argc, char **argv)
{
	struct __test_metadata *t, *next;
	struct __fixture_metadata *f;

	for (f = __fixture_list; f; f = f->next) {
		t = f->tests;
		f->tests = NULL;
		for (; t; t = next) {
			next = t->next;
			if (compat_selected(t, argc, argv))
				__register_test(t);
		}
	}

	return test_harness_run(argc, argv);
}

#define test_harness_run(argc, argv)	compat_run(argc, argv)

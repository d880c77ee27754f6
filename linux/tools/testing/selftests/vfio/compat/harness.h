/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Newer harnesses run neither a test nor its teardown if the setup of the fixture skips.
 * Those before 6.9 run both: here the process that runs the test ends with its setup.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <linux/version.h>

#include "../../kselftest_harness.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)

/* What this harness takes for a skip */
#define EXIT_SKIP	255

#undef FIXTURE_SETUP
#define FIXTURE_SETUP(fixture_name)						\
	static void fixture_name##_do_setup(struct __test_metadata *_metadata,	\
		FIXTURE_DATA(fixture_name) *self,				\
		const FIXTURE_VARIANT(fixture_name) *variant);			\
	void fixture_name##_setup(struct __test_metadata *_metadata,		\
		FIXTURE_DATA(fixture_name) *self,				\
		const FIXTURE_VARIANT(fixture_name) *variant)			\
	{									\
		fixture_name##_do_setup(_metadata, self, variant);		\
		if (_metadata->skip)						\
			_exit(EXIT_SKIP);					\
	}									\
	static void fixture_name##_do_setup(					\
		struct __test_metadata __attribute__((unused)) *_metadata,	\
		FIXTURE_DATA(fixture_name) __attribute__((unused)) *self,	\
		const FIXTURE_VARIANT(fixture_name) __attribute__((unused)) *variant)

#endif

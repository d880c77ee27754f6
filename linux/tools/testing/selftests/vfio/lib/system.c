// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/kernel.h>

#include <libvfio/system.h>

int read_text(const char *path, char *buf, size_t len)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;

	n = read(fd, buf, len - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return n;

	buf[n] = '\0';
	return n;
}

int write_text(const char *path, const char *text)
{
	ssize_t n;
	int fd;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;

	n = write(fd, text, strlen(text));
	if (n < 0)
		n = -errno;
	close(fd);

	return n < 0 ? n : 0;
}

/* Let the @nth allocation of this thread fail from now on, 0 for none */
int fault_inject(int fd, int nth)
{
	char buf[16];
	int len = snprintf(buf, sizeof(buf), "%d", nth);

	return pwrite(fd, buf, len, 0) == len ? 0 : -errno;
}

/* Has one failed?  Ends the injection */
bool fault_injected(int fd)
{
	char buf[16] = "";
	ssize_t n;

	n = pread(fd, buf, sizeof(buf) - 1, 0);
	fault_inject(fd, 0);

	return n > 0 && !atoi(buf);
}

static const char *const fault_kinds[] = { "failslab", "fail_page_alloc" };

/* Into allocations that may sleep, too, or only into the others */
int fault_inject_all(bool all)
{
	char path[128];
	size_t i;
	int ret = 0;

	for (i = 0; i < ARRAY_SIZE(fault_kinds) && !ret; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-wait",
			 fault_kinds[i]);
		ret = write_text(path, all ? "N" : "Y");
	}

	return ret;
}

int fault_inject_open(void)
{
	char path[128];
	size_t i;

	if (fault_inject_all(true))
		return -ENOENT;
	/* Without a word, and pages of any kind and number */
	for (i = 0; i < ARRAY_SIZE(fault_kinds); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose", fault_kinds[i]);
		write_text(path, "0");
	}
	write_text("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	write_text("/sys/kernel/debug/fail_page_alloc/min-order", "0");

	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

static __thread sigjmp_buf bus_env;
static __thread bool bus_armed;

static void bus_handler(int sig)
{
	if (bus_armed)
		siglongjmp(bus_env, 1);

	signal(sig, SIG_DFL);
	raise(sig);
}

static void bus_init(void)
{
	struct sigaction sa = { .sa_handler = bus_handler, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

int bus_read32(const void *addr, u32 *val)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	u32 v;

	pthread_once(&once, bus_init);
	if (sigsetjmp(bus_env, 0)) {
		bus_armed = false;
		return -EFAULT;
	}

	bus_armed = true;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	v = mmio_read32(addr);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	bus_armed = false;

	if (val)
		*val = v;
	return 0;
}

int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

bool kmsg_read(int fd, char *line, size_t len)
{
	ssize_t n;

	/* EPIPE: some were overwritten before they were read */
	do {
		n = read(fd, line, len - 1);
	} while (n < 0 && errno == EPIPE);
	if (n <= 0)
		return false;

	line[n] = '\0';
	return true;
}

int kmsg_new_lines(int fd, const char *word)
{
	char line[8192];
	int lines = 0;

	if (fd < 0)
		return -1;

	while (kmsg_read(fd, line, sizeof(line)))
		lines += !!strstr(line, word);

	return lines;
}

const char *tracing_dir(void)
{
	static const char * const dirs[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	static const char *found;
	char path[128];
	size_t i;

	/* Once: to look for it takes memory, which may be what is traced */
	for (i = 0; !found && i < sizeof(dirs) / sizeof(*dirs); i++) {
		snprintf(path, sizeof(path), "%s/instances", dirs[i]);
		if (!access(path, W_OK))
			found = dirs[i];
	}

	return found;
}

void die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == 1)
		_exit(1);
}

int module_load(const char *path)
{
	int fd, ret = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0))
		ret = -errno;
	close(fd);

	return ret;
}

u64 now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/kernel.h>
#include <linux/sizes.h>

#include <libvfio.h>
#include <libvfio/named_devices.h>
#include <libvfio/pci_sysfs.h>
#include <libvfio/system.h>

#define GUARDIAN_MS	30000

#define EDU		{ 0x123411e8, 0 }
#define BOCHS_DISPLAY	{ 0x12341111, 0 }
#define IVSHMEM		{ 0x1af41110, 2 }
#define TESTDEV		{ 0x1b360005, 0 }
#define E1000E		{ 0x808610d3, 0 }
#define NVME_REGS	{ 0x1b360010, 0 }
#define NVME_MEM	{ 0x1b360010, 2 }

const struct pci_want want_edu = { .kind = { EDU } };
const struct pci_want want_edu_slot = { .kind = { EDU }, .behind_port = true };
const struct pci_want want_mem = { .kind = { IVSHMEM, BOCHS_DISPLAY }, .min_size = SZ_1M };
const struct pci_want want_mem_slot = {
	.kind = { IVSHMEM, BOCHS_DISPLAY }, .min_size = SZ_1M, .behind_port = true
};

const struct pci_want want_mem_1g = { .kind = { IVSHMEM, BOCHS_DISPLAY }, .min_size = SZ_1G };
const struct pci_want want_shm = { .kind = { IVSHMEM }, .min_size = SZ_1M };
const struct pci_want want_testdev = { .kind = { TESTDEV }, .behind_port = true };
const struct pci_want want_e1000e = { .kind = { E1000E } };
const struct pci_want want_nvme = { .kind = { NVME_MEM }, .min_size = SZ_1M };
const struct pci_want want_nvme_pf = { .kind = { NVME_REGS }, .min_size = SZ_16K };

static bool pci_behind_port(const char *bdf)
{
	char path[PATH_MAX], target[PATH_MAX];
	char *parent;
	ssize_t n;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", bdf);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';

	/* ".../pci0000:00/0000:00:05.0/0000:01:00.0": is the parent a device? */
	*strrchr(target, '/') = '\0';
	parent = strrchr(target, '/');
	return parent && strncmp(parent, "/pci", 4);
}

static int pci_match(const char *bdf, const struct pci_want *want)
{
	u32 id = pci_read_hex(bdf, "vendor") << 16 | pci_read_hex(bdf, "device");
	const struct pci_kind *kind = want->kind;
	u64 size;

	if (id != kind->id && id != (++kind)->id)
		return -ENODEV;
	if (want->min_size && (pci_bar(bdf, kind->bar, NULL, &size) || size < want->min_size))
		return -ENODEV;
	if (want->behind_port && !pci_behind_port(bdf))
		return -ENODEV;

	return kind->bar;
}

/*
 * The devices that are named, and what each was found with.  Nothing else of them
 * has to be put back: vfio-pci saves what a device is configured to when it is opened, and
 * restores it when it is closed.
 */
static const char *const kept_attrs[] = { "numa_node", "power/control", "driver_override" };

struct pci_state {
	char driver[64];	/* empty for none */
	char attr[ARRAY_SIZE(kept_attrs)][64];
};

static struct named {
	char bdf[BDF_LEN];
	struct pci_state found;
	int lock;
} *named;
static size_t nr_named;

static pid_t program, guardian, self;
static int alive;

#define give_up(...) do {							\
	fprintf(stderr, "%s: ", program_invocation_short_name);			\
	fprintf(stderr, __VA_ARGS__);						\
	fprintf(stderr, "\n");							\
	exit(KSFT_FAIL);							\
} while (0)

/* No argument of the tests has a colon, and all addresses have two */
static bool is_address(const char *word)
{
	return strchr(word, ':');
}

static void name_device(const char *word)
{
	unsigned int segment, bus, device, function;
	char bdf[BDF_LEN];
	int len = 0;
	size_t i;

	if (sscanf(word, "%8x:%2x:%2x.%2x%n", &segment, &bus, &device, &function, &len) != 4 ||
	    word[len])
		give_up("'%s' is not the address of a PCI device, segment:bus:device.function",
			word);
	snprintf(bdf, sizeof(bdf), "%04x:%02x:%02x.%x", segment, bus, device, function);
	if (!pci_present(bdf))
		give_up("there is no PCI device %s", bdf);

	for (i = 0; i < nr_named; i++)
		if (!strcmp(named[i].bdf, bdf))
			return;

	named = realloc(named, (nr_named + 1) * sizeof(*named));
	if (!named)
		give_up("no memory");
	snprintf(named[nr_named++].bdf, BDF_LEN, "%s", bdf);
}

static int compare_named(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	return strcmp(x->bdf, y->bdf);
}

/* As libvfio has it: arguments, or else the environment */
static void name_devices(int argc, char **argv)
{
	const char *env = getenv(DEVICES_ENV);
	char *words, *word, *save = NULL;
	int i;

	for (i = 1; i < argc; i++)
		if (is_address(argv[i]))
			name_device(argv[i]);

	if (!nr_named && env) {
		words = strdup(env);
		if (!words)
			give_up("no memory");
		for (word = strtok_r(words, " \t\n", &save); word;
		     word = strtok_r(NULL, " \t\n", &save))
			name_device(word);
		free(words);
	}

	if (nr_named)
		qsort(named, nr_named, sizeof(*named), compare_named);
}

int pci_find(const struct pci_want *want, unsigned int nth, char *bdf)
{
	size_t i;
	int bar;

	for (i = 0; i < nr_named; i++) {
		bar = pci_match(named[i].bdf, want);
		if (bar < 0 || nth--)
			continue;
		snprintf(bdf, BDF_LEN, "%s", named[i].bdf);
		return bar;
	}

	return -ENODEV;
}

static void read_attr(const char *bdf, const char *attr, char *buf, size_t len)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, attr);
	if (read_text(path, buf, len) < 0)
		buf[0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

static void write_attr(const char *bdf, const char *attr, const char *text)
{
	char path[PATH_MAX];

	/* What is read when there is none, and what is written so that there is none */
	if (!strcmp(text, "(null)"))
		text = "\n";
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, attr);
	write_text(path, text);
}

static void pci_state_read(const char *bdf, struct pci_state *state)
{
	char *driver = sysfs_driver_get(bdf);
	size_t i;

	memset(state, 0, sizeof(*state));
	snprintf(state->driver, sizeof(state->driver), "%s", driver ? driver : "");
	free(driver);
	for (i = 0; i < ARRAY_SIZE(kept_attrs); i++)
		read_attr(bdf, kept_attrs[i], state->attr[i], sizeof(state->attr[i]));
}

static void put_back_attrs(const struct named *n)
{
	struct pci_state now;
	size_t i;

	pci_state_read(n->bdf, &now);
	for (i = 0; i < ARRAY_SIZE(kept_attrs); i++)
		if (strcmp(now.attr[i], n->found.attr[i]))
			write_attr(n->bdf, kept_attrs[i], n->found.attr[i]);
}

static void put_back(const struct named *n)
{
	const char *driver = n->found.driver;
	struct pci_state now;
	char path[PATH_MAX];

	pci_state_read(n->bdf, &now);
	if (strcmp(now.driver, driver)) {
		/* Waits until the device is closed */
		pci_unbind(n->bdf);
		put_back_attrs(n);
		/* It may have been bound for an override that was cleared after that */
		if (driver[0]) {
			write_attr(n->bdf, "driver_override", driver);
			snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/bind", driver);
			write_text(path, n->bdf);
		}
	}
	put_back_attrs(n);
}

/* One that is unplugged has nothing to be put back */
static bool is_back(const struct named *n)
{
	struct pci_state now;

	if (!pci_present(n->bdf))
		return true;

	pci_state_read(n->bdf, &now);
	return !memcmp(&now, &n->found, sizeof(now));
}

static bool all_are_back(void)
{
	bool all = true;
	size_t i;

	for (i = 0; i < nr_named; i++) {
		if (is_back(&named[i]))
			continue;
		all = false;
		fprintf(stderr, "%s: %s was found with %s%s, and is not as it was\n",
			program_invocation_short_name, named[i].bdf,
			named[i].found.driver[0] ? "driver " : "no driver", named[i].found.driver);
	}

	return all;
}

static void put_all_back(void)
{
	size_t i;

	/* A test may have ended between a removal and the rescan */
	for (i = 0; i < nr_named; i++)
		if (!pci_present(named[i].bdf))
			break;
	if (i < nr_named)
		write_text("/sys/bus/pci/rescan", "1");

	for (i = 0; i < nr_named; i++)
		if (!is_back(&named[i]))
			put_back(&named[i]);
}

/* All but the pipe and the locks; what is said goes to the kernel's log */
static void drop_files(int pipe)
{
	int null = open("/dev/null", O_RDWR), log = open("/dev/kmsg", O_WRONLY);
	int fd, last = pipe;
	bool needed;
	size_t i;

	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(log < 0 ? null : log, STDERR_FILENO);
	for (i = 0; i < nr_named; i++)
		if (named[i].lock > last)
			last = named[i].lock;
	for (fd = STDERR_FILENO + 1; fd < last; fd++) {
		needed = fd == pipe;
		for (i = 0; i < nr_named; i++)
			needed |= fd == named[i].lock;
		if (!needed)
			close(fd);
	}
	syscall(__NR_close_range, last + 1, ~0U, 0);
}

/*
 * The guardian puts the devices back when all processes of the program are gone, whatever
 * ended them.  So it has nothing that whoever ends them or waits for them would find it by:
 * no name, no session, no files of theirs.
 */
static void guard(int pipe, char **argv)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM };
	size_t i;
	char c;

	for (i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	setsid();
	memset(argv[0], 0, strlen(argv[0]));
	program_invocation_short_name = "vfio-guardian";
	prctl(PR_SET_NAME, program_invocation_short_name);
	drop_files(pipe);
	if (chdir("/"))
		_exit(KSFT_FAIL);

	while (read(pipe, &c, 1) < 0 && errno == EINTR)
		;
	put_all_back();
	_exit(all_are_back() ? KSFT_PASS : KSFT_FAIL);
}

/* One program at a time: the last one's guardian may still be busy */
static void lock_device(struct named *n)
{
	u64 deadline = now_us() + GUARDIAN_MS * 1000;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", n->bdf);
	n->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (n->lock < 0 || flock(n->lock, LOCK_EX | LOCK_NB)) {
		if (n->lock < 0 || now_us() > deadline)
			give_up("%s is in use by another test", n->bdf);
		usleep(10000);
	}
}

/*
 * A test does not outlive the program.  The harness runs it in a child, or in a child of a
 * child; others are the test's own business.
 */
static void end_with_program(void)
{
	static int depth;
	pid_t parent = self;

	self = getpid();
	if (depth++ >= 2)
		return;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(KSFT_FAIL);
}

/* Whatever is run next is to find everything in place */
static void wait_for_guardian(void)
{
	u64 deadline = now_us() + GUARDIAN_MS * 1000;

	/* A child that calls exit() gets here too */
	if (getpid() != program)
		return;

	close(alive);
	while (!waitpid(guardian, NULL, WNOHANG) && now_us() < deadline)
		usleep(1000);
	if (!all_are_back()) {
		fflush(NULL);
		_exit(KSFT_FAIL);
	}
}

void named_devices_init(int argc, char **argv)
{
	int fd[2];
	size_t i;

	name_devices(argc, argv);
	if (!nr_named)
		return;

	for (i = 0; i < nr_named; i++) {
		lock_device(&named[i]);
		pci_state_read(named[i].bdf, &named[i].found);
	}

	program = getpid();
	self = program;
	if (pipe2(fd, O_CLOEXEC))
		give_up("no pipe");
	guardian = fork();
	if (guardian < 0)
		give_up("no process to put devices back");
	if (!guardian) {
		close(fd[1]);
		guard(fd[0], argv);
	}

	alive = fd[1];
	close(fd[0]);
	for (i = 0; i < nr_named; i++)
		close(named[i].lock);
	pthread_atfork(NULL, NULL, end_with_program);
	atexit(wait_for_guardian);
}

bool asked_for(const char *name, int argc, char **argv)
{
	bool others = false;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(name, argv[i]))
			return true;
		others |= !is_address(argv[i]);
	}

	return !others;
}

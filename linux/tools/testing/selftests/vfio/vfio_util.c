// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/kernel.h>
#include <linux/pci_regs.h>

#include "vfio_util.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"
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

/*
 * sysfs
 */
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

static unsigned long read_hex(const char *bdf, const char *attr)
{
	char path[PATH_MAX], buf[64];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, attr);
	if (read_text(path, buf, sizeof(buf)) < 0)
		return ULONG_MAX;

	return strtoul(buf, NULL, 16);
}

bool pci_present(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", bdf);
	return !access(path, F_OK);
}

bool pci_is_suspended(const char *bdf)
{
	uint64_t deadline = now_us() + 20 * 1000000;
	char path[PATH_MAX], status[32] = "";

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/power/runtime_status", bdf);
	while (now_us() < deadline) {
		if (read_text(path, status, sizeof(status)) >= 0 &&
		    !strcmp(status, "suspended\n"))
			return true;
		usleep(10000);
	}

	printf("# %s: %s", path, status);
	return false;
}

int pci_bar(const char *bdf, int bar, uint64_t *start, uint64_t *size)
{
	char path[PATH_MAX], buf[1024], *line, *save = NULL;
	unsigned long long first, last;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource", bdf);
	if (read_text(path, buf, sizeof(buf)) < 0)
		return -ENODEV;

	for (line = strtok_r(buf, "\n", &save); line && bar; bar--)
		line = strtok_r(NULL, "\n", &save);

	if (!line || sscanf(line, "%llx %llx", &first, &last) != 2 || !last)
		return -ENOENT;

	if (start)
		*start = first;
	if (size)
		*size = last - first + 1;
	return 0;
}

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
	uint32_t id = read_hex(bdf, "vendor") << 16 | read_hex(bdf, "device");
	const struct pci_kind *kind = want->kind;
	uint64_t size;

	if (id != kind->id && id != (++kind)->id)
		return -ENODEV;
	if (want->min_size && (pci_bar(bdf, kind->bar, NULL, &size) || size < want->min_size))
		return -ENODEV;
	if (want->behind_port && !pci_behind_port(bdf))
		return -ENODEV;

	return kind->bar;
}

int pci_unbind(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver/unbind", bdf);
	return write_text(path, bdf);
}

/* Of any driver, if @driver is NULL */
static bool pci_has_driver(const char *bdf, const char *driver)
{
	char *name = sysfs_driver_get(bdf);
	bool has = name && (!driver || !strcmp(name, driver));

	free(name);
	return has;
}

bool pci_bound_to_vfio(const char *bdf)
{
	return pci_has_driver(bdf, "vfio-pci");
}

int pci_bind_vfio(const char *bdf)
{
	char path[PATH_MAX];
	int ret;

	if (pci_bound_to_vfio(bdf))
		return 0;

	if (pci_has_driver(bdf, NULL)) {
		ret = pci_unbind(bdf);
		if (ret)
			return ret;
	}

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", bdf);
	ret = write_text(path, "vfio-pci");
	if (!ret)
		ret = write_text("/sys/bus/pci/drivers_probe", bdf);
	if (!ret && !pci_bound_to_vfio(bdf))
		ret = -ENXIO;

	return ret;
}

/* Path of the hot-plug slot a device sits in */
int pci_slot(const char *bdf, char *slot, size_t len)
{
	char path[PATH_MAX], addr[64];
	struct dirent *entry;
	int ret = -ENOENT;
	DIR *dir;

	dir = opendir("/sys/bus/pci/slots");
	if (!dir)
		return -errno;

	while (ret && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/slots/%s/address", entry->d_name);
		if (read_text(path, addr, sizeof(addr)) < 0)
			continue;
		addr[strcspn(addr, "\n")] = '\0';
		/* The slot has domain:bus:device, without the function */
		if (strncmp(addr, bdf, strlen(addr)) || bdf[strlen(addr)] != '.')
			continue;
		snprintf(slot, len, "/sys/bus/pci/slots/%s", entry->d_name);
		ret = 0;
	}
	closedir(dir);

	return ret;
}

/* A mapping of a BAR which has nothing to do with VFIO */
void *pci_sysfs_map(const char *bdf, int bar, size_t size)
{
	char path[PATH_MAX];
	void *p;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource%d", bdf, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);

	return p == MAP_FAILED ? NULL : p;
}

/*
 * The devices that the user has named, and what each was found with.  Nothing else of them
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
	uint64_t deadline = now_us() + GUARDIAN_MS * 1000;
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
	uint64_t deadline = now_us() + GUARDIAN_MS * 1000;

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

/* The C library gives the arguments of main() to constructors too */
static void __attribute__((constructor)) devices_init(int argc, char **argv)
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

/*
 * Containers, groups, devices
 */
void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void iommu_close(struct iommu **iommu)
{
	if (*iommu)
		iommu_cleanup(*iommu);
	*iommu = NULL;
}

int group_patience_ms = 10000;

int group_open(const char *bdf)
{
	uint64_t deadline = now_us() + group_patience_ms * 1000;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/vfio/%d", sysfs_iommu_group_get(bdf));
	while ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0 && errno == EBUSY && now_us() < deadline)
		usleep(50000);

	return fd < 0 ? -errno : fd;
}

/* The first group in a container also gives it its IOMMU backend */
int group_attach(struct vfio_pci_device *dev)
{
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &dev->iommu->container_fd))
		return -errno;

	vfio_container_set_iommu(dev);
	return 0;
}

int group_detach(const struct vfio_pci_device *dev)
{
	return ioctl(dev->group_fd, VFIO_GROUP_UNSET_CONTAINER) ? -errno : 0;
}

struct vfio_pci_device *dev_alloc(const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *dev = vfio_pci_device_alloc(bdf, iommu);

	dev->fd = -1;
	dev->group_fd = -1;
	return dev;
}

int dev_prepare(const char *bdf)
{
	int ret;

	ret = pci_bind_vfio(bdf);
	if (!ret)
		ret = group_open(bdf);
	if (ret < 0)
		return ret;

	close(ret);
	return 0;
}

/* @dev has a group, which is in its container */
static int dev_open_in_group(struct vfio_pci_device **pdev, struct vfio_pci_device *dev)
{
	int ret;

	__vfio_pci_group_get_device_fd(dev, dev->bdf, NULL);
	dev->info.argsz = sizeof(dev->info);
	if (dev->fd < 0 || ioctl(dev->fd, VFIO_DEVICE_GET_INFO, &dev->info))
		ret = -errno;
	else
		ret = region_info(dev->fd, VFIO_PCI_CONFIG_REGION_INDEX, &dev->config_space);
	if (ret)
		dev_close(&dev);

	*pdev = dev;
	return ret;
}

int dev_open(struct vfio_pci_device **pdev, const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *dev;
	int ret;

	*pdev = NULL;
	ret = dev_prepare(bdf);
	if (ret)
		return ret;

	dev = dev_alloc(bdf, iommu);
	vfio_pci_group_setup(dev, bdf);
	vfio_container_set_iommu(dev);

	return dev_open_in_group(pdev, dev);
}

int dev_open_apart(struct vfio_pci_device **pdev, const char *bdf, struct iommu *iommu,
		   const char *other)
{
	struct vfio_pci_device *dev;
	int inject, nth, ret;
	bool more = true;

	*pdev = NULL;
	ret = dev_prepare(bdf);
	if (ret)
		return ret;
	/* Without memory older kernels cannot detach a group either, and warn */
	if (!kernel_since(6, 12))
		return -ENODATA;
	inject = fault_inject_open();
	if (inject < 0)
		return -ENODATA;

	dev = dev_alloc(bdf, iommu);
	for (nth = 1, ret = -ENODATA; ret && more; nth++) {
		dev->group_fd = group_open(bdf);
		fault_inject(inject, nth);
		ret = ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &iommu->container_fd);
		ret = ret ? -errno : 0;
		more = fault_injected(inject);
		if (!ret && iommu_table(bdf) == iommu_table(other))
			ret = -ENODATA;
		if (ret)
			fd_close(&dev->group_fd);
	}
	fd_close(&inject);
	if (!ret)
		return dev_open_in_group(pdev, dev);

	/* That was the last try, in which nothing was made to fail */
	dev_close(&dev);
	return ret;
}

/* One more fd of the device */
int dev_get_fd(const struct vfio_pci_device *dev)
{
	struct vfio_pci_device again = *dev;

	__vfio_pci_group_get_device_fd(&again, dev->bdf, NULL);
	return again.fd < 0 ? -errno : again.fd;
}

void dev_close_fd(struct vfio_pci_device *dev)
{
	int i;

	if (dev->driver.initialized)
		vfio_pci_driver_remove(dev);
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		if (dev->bars[i].vaddr)
			munmap(dev->bars[i].vaddr, dev->bars[i].info.size);
		dev->bars[i].vaddr = NULL;
	}
	fd_close(&dev->fd);
}

void dev_close(struct vfio_pci_device **pdev)
{
	struct vfio_pci_device *dev = *pdev;

	if (!dev)
		return;

	dev_close_fd(dev);
	fd_close(&dev->group_fd);
	vfio_pci_device_free(dev);
	*pdev = NULL;
}

const char *mode_is_missing(const char *mode, const char *bdf)
{
	char path[PATH_MAX];

	if (strncmp(mode, "iommufd", strlen("iommufd")))
		return NULL;
	if (access("/dev/iommu", R_OK | W_OK))
		return "this kernel has no iommufd";

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/vfio-dev", bdf);
	if (!strcmp(mode, MODE_IOMMUFD) && access(path, F_OK))
		return "this kernel has no character devices of vfio";

	return NULL;
}

int region_info(int devfd, unsigned int index, struct vfio_region_info *info)
{
	memset(info, 0, sizeof(*info));
	info->argsz = sizeof(*info);
	info->index = index;

	return ioctl(devfd, VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
}

bool region_can_mmap(int devfd, unsigned int index)
{
	struct vfio_region_info info;

	return !region_info(devfd, index, &info) && (info.flags & VFIO_REGION_INFO_FLAG_MMAP);
}

void *bar_mmap_at(void *addr, int devfd, unsigned int index, int prot, size_t offset,
		  size_t size)
{
	struct vfio_region_info info;
	void *p;

	if (region_info(devfd, index, &info) || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return NULL;

	p = mmap(addr, size, prot, MAP_SHARED | (addr ? MAP_FIXED : 0), devfd,
		 info.offset + offset);

	return p == MAP_FAILED ? NULL : p;
}

void *bar_mmap(int devfd, unsigned int index, int prot, size_t offset, size_t size)
{
	return bar_mmap_at(NULL, devfd, index, prot, offset, size);
}

bool dev_can_reset(const struct vfio_pci_device *dev)
{
	return dev->info.flags & VFIO_DEVICE_FLAGS_RESET;
}

int dev_hot_reset(const struct vfio_pci_device *dev)
{
	struct vfio_pci_hot_reset *reset;
	size_t size = sizeof(*reset) + sizeof(reset->group_fds[0]);
	int ret = 0;

	reset = calloc(1, size);
	if (!reset)
		return -ENOMEM;

	reset->argsz = size;
	reset->count = 1;
	reset->group_fds[0] = dev->group_fd;
	if (ioctl(dev->fd, VFIO_DEVICE_PCI_HOT_RESET, reset))
		ret = -errno;
	free(reset);

	return ret;
}

int dev_function_level_reset(struct vfio_pci_device *dev)
{
	u8 pos = dev_find_cap(dev, PCI_CAP_ID_EXP);
	u16 ctl;

	if (!pos || !(vfio_pci_config_readl(dev, pos + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR))
		return -ENOTTY;

	ctl = vfio_pci_config_readw(dev, pos + PCI_EXP_DEVCTL);
	vfio_pci_config_writew(dev, pos + PCI_EXP_DEVCTL, ctl | PCI_EXP_DEVCTL_BCR_FLR);
	return 0;
}

u8 dev_find_cap(struct vfio_pci_device *dev, u8 id)
{
	u8 pos = vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST);

	while (pos && vfio_pci_config_readb(dev, pos + PCI_CAP_LIST_ID) != id)
		pos = vfio_pci_config_readb(dev, pos + PCI_CAP_LIST_NEXT);

	return pos;
}

void dev_set_power(struct vfio_pci_device *dev, u16 state)
{
	u8 pos = dev_find_cap(dev, PCI_CAP_ID_PM);
	u16 ctrl = vfio_pci_config_readw(dev, pos + PCI_PM_CTRL);

	vfio_pci_config_writew(dev, pos + PCI_PM_CTRL,
			       (ctrl & ~PCI_PM_CTRL_STATE_MASK) | state);
}

int dev_feature_set(struct vfio_pci_device *dev, u32 feature)
{
	struct vfio_device_feature arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}

int dev_low_power_with_wakeup(struct vfio_pci_device *dev, int eventfd)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_low_power_entry_with_wakeup entry;
	} arg = {
		.feature.argsz = sizeof(arg),
		.feature.flags = VFIO_DEVICE_FEATURE_SET |
				 VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
		.entry.wakeup_eventfd = eventfd,
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}

#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
int dev_dmabuf_export(struct vfio_pci_device *dev, int bar, uint64_t size)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_feature_dma_buf dma_buf;
		struct vfio_region_dma_range range;
	} arg = {
		.feature.argsz = sizeof(arg),
		.feature.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
		.dma_buf.region_index = bar,
		.dma_buf.open_flags = O_RDWR | O_CLOEXEC,
		.dma_buf.nr_ranges = 1,
		.range.length = size,
	};
	int fd = ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg);

	return fd < 0 ? -errno : fd;
}
#endif

/*
 * DMA mappings
 */
int dma_map(struct iommu *iommu, u64 iova, const void *vaddr, u64 size, u32 flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)vaddr,
		.iova = iova,
		.size = size,
	};

	return ioctl(iommu->container_fd, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

int64_t dma_unmap_flags(struct iommu *iommu, u64 iova, u64 size, u32 flags)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = flags,
		.iova = iova,
		.size = size,
	};

	if (ioctl(iommu->container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return -errno;

	return unmap.size;
}

int64_t dma_unmap(struct iommu *iommu, u64 iova, u64 size)
{
	return dma_unmap_flags(iommu, iova, size, 0);
}

bool dma_has(struct iommu *iommu, int extension)
{
	return ioctl(iommu->container_fd, VFIO_CHECK_EXTENSION, extension) > 0;
}

int dma_track_dirty(struct iommu *iommu, bool on)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START :
			      VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
	};

	return ioctl(iommu->container_fd, VFIO_IOMMU_DIRTY_PAGES, &dirty) ? -errno : 0;
}

/* How many more mappings the container would take */
int64_t dma_avail(struct iommu *iommu)
{
	struct vfio_iommu_type1_info_dma_avail *cap;
	struct vfio_iommu_type1_info *info;
	struct vfio_info_cap_header *hdr;
	int64_t ret = -ENOENT;
	uint32_t off;

	info = calloc(1, SZ_4K);
	if (!info)
		return -ENOMEM;

	info->argsz = SZ_4K;
	if (ioctl(iommu->container_fd, VFIO_IOMMU_GET_INFO, info)) {
		ret = -errno;
	} else if (info->flags & VFIO_IOMMU_INFO_CAPS) {
		for (off = info->cap_offset; off; off = hdr->next) {
			hdr = (void *)info + off;
			if (hdr->id != VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
				continue;
			cap = (void *)hdr;
			ret = cap->avail;
			break;
		}
	}
	free(info);

	return ret;
}

static long proc_status_kb(const char *key)
{
	char line[256];
	long kb = -1;
	FILE *f;

	f = fopen("/proc/self/status", "re");
	if (!f)
		return -1;

	while (kb < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kb = strtol(line + strlen(key), NULL, 10);
	fclose(f);

	return kb;
}

long proc_locked_kb(void)
{
	return proc_status_kb("VmLck:");
}

long proc_page_tables_kb(void)
{
	return proc_status_kb("VmPTE:");
}

/*
 * Memory allocations that fail
 */

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

/*
 * IOMMU page tables.  Each reader answers for one IOMMU driver and its format.
 */
#define INTEL_DEBUGFS	"/sys/kernel/debug/iommu/intel"

#define INTEL_LEVELS	5
#define INTEL_ADDR_MASK	0x000ffffffffff000ULL

/*
 * A line is the IOVA's page number and the entries on the way down, leaf last
 * or, for a superpage, followed by zeroes, or by nothing:
 *
 *  0x0000000001000 |	0x<PML5E>	0x<PML4E>	0x<PDPE>	0x<PDE>	0x<PTE>
 */
static bool intel_parse_line(const char *line, uint64_t *iova, uint64_t *phys, uint64_t *size)
{
	unsigned long long pfn, e[INTEL_LEVELS] = { 0 };
	int leaf;

	if (sscanf(line, "%llx | %llx %llx %llx %llx %llx", &pfn, &e[0], &e[1], &e[2], &e[3],
		   &e[4]) < 3)
		return false;

	for (leaf = INTEL_LEVELS - 1; leaf > 0 && !e[leaf]; leaf--)
		;

	*iova = pfn << 12;
	*size = (uint64_t)SZ_4K << (9 * (INTEL_LEVELS - 1 - leaf));
	*phys = e[leaf] & INTEL_ADDR_MASK & ~(*size - 1);
	return true;
}

/* Newer kernels have a file a device, older ones have all in one file */
static FILE *intel_open(const char *bdf)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), INTEL_DEBUGFS "/%s/domain_translation_struct", bdf);
	f = fopen(path, "re");

	return f ?: fopen(INTEL_DEBUGFS "/domain_translation_struct", "re");
}

/* How many entries map a part of @size bytes from @want on, the last one of them to @phys */
static int intel_count(const char *bdf, uint64_t want, uint64_t size, uint64_t *phys)
{
	uint64_t iova, base, len;
	char line[512], name[BDF_LEN];
	FILE *f = intel_open(bdf);
	bool ours = false;
	int ret = -ENOENT;

	if (!f)
		return -ENOENT;

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Device %31s", name) == 1) {
			ours = !strcmp(name, bdf);
			if (ours)
				ret = 0;
			continue;
		}
		if (!ours || !intel_parse_line(line, &iova, &base, &len))
			continue;
		if (want + size <= iova || iova + len <= want)
			continue;
		if (phys)
			*phys = base + (want - iova);
		ret++;
		if (size == 1)
			break;
	}
	fclose(f);

	return ret;
}

/* Device <bdf> ... @0x<table> */
static uint64_t intel_table(const char *bdf)
{
	char line[512], name[BDF_LEN], *at;
	FILE *f = intel_open(bdf);
	uint64_t table = 0;

	while (f && !table && fgets(line, sizeof(line), f)) {
		at = strstr(line, " @0x");
		if (at && sscanf(line, "Device %31s", name) == 1 && !strcmp(name, bdf))
			table = strtoull(at + 2, NULL, 0);
	}
	if (f)
		fclose(f);

	return table;
}

static const struct iommu_reader {
	const char *name;
	int (*count)(const char *bdf, uint64_t iova, uint64_t size, uint64_t *phys);
	uint64_t (*table)(const char *bdf);
} iommu_readers[] = {
	{ "intel", intel_count, intel_table },
	{ NULL, NULL, NULL }
};

static int iommu_entries(const char *bdf, uint64_t iova, uint64_t size, uint64_t *phys)
{
	const struct iommu_reader *reader;
	int ret = -ENOENT;

	for (reader = iommu_readers; reader->name; reader++) {
		ret = reader->count(bdf, iova, size, phys);
		if (ret >= 0)
			break;
	}

	return ret;
}

int iommu_lookup(const char *bdf, uint64_t iova, uint64_t *phys)
{
	return iommu_entries(bdf, iova, 1, phys);
}

int iommu_count(const char *bdf, uint64_t iova, uint64_t size)
{
	return iommu_entries(bdf, iova, size, NULL);
}

uint64_t iommu_table(const char *bdf)
{
	const struct iommu_reader *reader;
	uint64_t table = 0;

	for (reader = iommu_readers; reader->name && !table; reader++)
		table = reader->table(bdf);

	return table;
}

bool iommu_maps(const char *bdf, uint64_t iova, uint64_t phys)
{
	uint64_t seen = 0;
	int ret;

	ret = iommu_lookup(bdf, iova, &seen);
	if (ret < 0 || (ret == 1 && seen == phys))
		return true;

	printf("# IOVA 0x%llx is %s 0x%llx, not at 0x%llx\n", (unsigned long long)iova,
	       ret ? "mapped to" : "not mapped,", (unsigned long long)seen,
	       (unsigned long long)phys);
	return false;
}

/*
 * Peer to peer
 */
void p2p_close_mapper(struct p2p *p)
{
	dev_close(&p->a);
	iommu_close(&p->iommu);
}

void p2p_close(struct p2p *p)
{
	dev_close(&p->b);
	p2p_close_mapper(p);
	if (p->window)
		munmap(p->window, SZ_1M);
	if (p->memory.vaddr)
		munmap(p->memory.vaddr, p->memory.size);
	p->window = NULL;
	p->memory.vaddr = NULL;
}

/* A page to do DMA to and from, and one that the driver of A has to itself */
static int p2p_start_driver(struct p2p *p)
{
	p->memory.vaddr = ram_alloc(2 * SZ_4K);
	p->memory.iova = IOVA_SCRATCH;
	p->memory.size = 2 * SZ_4K;
	if (!p->memory.vaddr)
		return -ENOMEM;

	iommu_map(p->iommu, &p->memory);
	p->scratch = p->memory.vaddr;
	p->a->driver.region.vaddr = p->memory.vaddr + SZ_4K;
	p->a->driver.region.iova = IOVA_SCRATCH + SZ_4K;
	p->a->driver.region.size = SZ_4K;
	vfio_pci_driver_init(p->a);
	return 0;
}

int p2p_open_mode(struct p2p *p, const struct pci_want *want_b, const char *mode)
{
	int ret;

	memset(p, 0, sizeof(*p));
	ret = pci_find(&want_edu, 0, p->bdf_a);
	if (ret >= 0)
		ret = pci_find(want_b, 0, p->bdf_b);
	if (ret < 0)
		return ret;

	p->bar = ret;
	ret = pci_bar(p->bdf_b, p->bar, &p->phys, &p->size);
	if (!ret)
		ret = dev_prepare(p->bdf_a);
	if (ret)
		return ret;

	p->iommu = iommu_init(mode);
	p->a = vfio_pci_device_init(p->bdf_a, p->iommu);
	ret = p2p_start_driver(p);
	if (ret)
		p2p_close(p);

	return ret;
}

int p2p_open(struct p2p *p, const struct pci_want *want_b)
{
	return p2p_open_mode(p, want_b, MODE_VFIO_TYPE1V2_IOMMU);
}

/* Looks at the same memory, and does so after B is closed too */
int p2p_open_window(struct p2p *p)
{
	if (!p->window)
		p->window = pci_sysfs_map(p->bdf_b, p->bar, SZ_1M);

	return p->window ? 0 : -ENOMEM;
}

int p2p_open_peer_in(struct p2p *p, struct iommu *iommu)
{
	int ret;

	ret = dev_open(&p->b, p->bdf_b, iommu);
	if (ret)
		return ret;

	return p2p_open_window(p);
}

int p2p_open_peer(struct p2p *p)
{
	return p2p_open_peer_in(p, p->iommu);
}

void *p2p_bar(struct p2p *p, size_t offset, size_t size)
{
	return bar_mmap(p->b->fd, p->bar, PROT_READ | PROT_WRITE, offset, size);
}

void p2p_release(struct p2p *p, void *bar, size_t size)
{
	munmap(bar, size);
	dev_close(&p->b);
}

int p2p_store(struct p2p *p, uint64_t iova, uint32_t val)
{
	memcpy(p->scratch, &val, sizeof(val));
	return vfio_pci_driver_memcpy(p->a, IOVA_SCRATCH, iova, sizeof(val));
}

int p2p_lands(struct p2p *p, uint64_t iova, size_t offset)
{
	static uint32_t stamp = 0x5a000000;
	uint32_t before = ++stamp, val = ++stamp, seen;
	int ret;

	mmio_write32(p->window + offset, before);
	ret = p2p_store(p, iova, val);
	if (ret)
		return ret;

	seen = mmio_read32(p->window + offset);
	if (seen == val)
		return 1;

	/* Anything else means that the memory cannot be seen: no proof at all */
	return seen == before ? 0 : -EIO;
}

/*
 * Ordinary memory
 */
int p2p_still_reads(struct p2p *p, uint64_t iova, uint8_t byte)
{
	const uint8_t *seen = p->scratch;
	int ret, i;

	memset(p->scratch, ~byte, SPAN);
	ret = vfio_pci_driver_memcpy(p->a, iova, IOVA_SCRATCH, SPAN);
	if (ret)
		return ret;

	for (i = 0; i < SPAN; i++)
		if (seen[i] != byte)
			break;
	if (i == SPAN)
		return 1;

	printf("# byte %d at IOVA 0x%llx is 0x%02x to the device, not 0x%02x\n", i,
	       (unsigned long long)iova, seen[i], byte);
	return 0;
}

static uint8_t next_byte(void)
{
	static uint8_t byte = 0x40;

	return ++byte;
}

int p2p_reads(struct p2p *p, uint64_t iova, void *ram)
{
	uint8_t byte = next_byte();

	memset(ram, byte, SPAN);
	return p2p_still_reads(p, iova, byte);
}

int p2p_agrees(struct p2p *p, uint64_t iova, void *ram)
{
	const uint8_t *bytes = ram;
	uint8_t byte = next_byte();
	int ret, i;

	memset(ram, byte, SPAN / 2);
	memset(ram + SPAN / 2, ~byte, SPAN / 2);
	ret = vfio_pci_driver_memcpy(p->a, iova, iova + SPAN / 2, SPAN / 2);
	if (ret)
		return ret;

	for (i = 0; i < SPAN; i++)
		if (bytes[i] != byte)
			break;
	if (i == SPAN)
		return 1;

	printf("# the device copied 0x%02x from IOVA 0x%llx on, and byte %d is 0x%02x\n", byte,
	       (unsigned long long)iova, i, bytes[i]);
	return 0;
}

int pages_of(const void *addr, size_t n, uint64_t *pfn)
{
	size_t len = n * sizeof(*pfn), i;
	int fd, ret = 0;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;

	if (pread(fd, pfn, len, (uintptr_t)addr / SZ_4K * sizeof(*pfn)) != (ssize_t)len)
		ret = -EIO;
	close(fd);

	/* Bit 63: there is a page; bits 0 to 54: its number */
	for (i = 0; !ret && i < n; i++)
		pfn[i] = pfn[i] >> 63 ? pfn[i] & ((1ULL << 55) - 1) : 0;

	return ret;
}

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define HUGETLB		"/sys/kernel/mm/hugepages/hugepages-2048kB/"

const char *ram_is_missing(const struct ram_kind *kind)
{
	if (kind->huge && access(THP "enabled", F_OK))
		return "this kernel has no transparent huge pages";
	if (kind->huge && kind->shared && write_text(THP "shmem_enabled", "advise"))
		return "this kernel has no huge pages in shared memory";
	if (kind->hugetlb && write_text(HUGETLB "nr_hugepages", "8"))
		return "this kernel has no hugetlb pages";

	return NULL;
}

void *ram_reserve(size_t size)
{
	void *p = mmap(NULL, size + SZ_2M, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;

	return (void *)(((uintptr_t)p + SZ_2M - 1) & ~(SZ_2M - 1UL));
}

void *ram_of_kind(const struct ram_kind *kind, int *fd)
{
	int flags = MAP_FIXED;
	void *at, *mem;

	*fd = -1;
	if (kind->shared) {
		flags |= MAP_SHARED;
		*fd = memfd_create("ram", MFD_CLOEXEC | (kind->hugetlb ? MFD_HUGETLB : 0));
		if (*fd < 0 || ftruncate(*fd, RAM_SIZE))
			return NULL;
	} else {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS | (kind->hugetlb ? MAP_HUGETLB : 0);
	}

	at = ram_reserve(RAM_SIZE);
	if (!at)
		return NULL;
	mem = mmap(at, RAM_SIZE, PROT_READ | PROT_WRITE, flags, *fd, 0);
	if (mem == MAP_FAILED)
		return NULL;
	if (!kind->hugetlb && madvise(mem, RAM_SIZE, kind->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return NULL;

	memset(mem, RAM_BYTE, RAM_SIZE);
	return mem;
}

bool ram_is_huge(const void *addr)
{
	const uint64_t huge = 1ULL << 17, thp = 1ULL << 22;
	uint64_t flags = 0, pfn;
	int fd;

	if (pages_of(addr, 1, &pfn) || !pfn)
		return false;
	fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;

	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = 0;
	close(fd);

	return flags & (huge | thp);
}

const char *pmem_mount(char *dir, const char *options)
{
	const char *pmem = getenv("VFIO_SELFTESTS_PMEM");
	char command[256];

	dir[0] = '\0';
	if (!pmem)
		return "needs a pmem device to format, in VFIO_SELFTESTS_PMEM";
	snprintf(command, sizeof(command), "mke2fs -F -b 4096 %s > /dev/null 2>&1", pmem);
	if (system(command))
		return "needs mke2fs, and a pmem device that it can format";

	snprintf(dir, PMEM_DIR_LEN, "/tmp/vfio-XXXXXX");
	if (!mkdtemp(dir)) {
		dir[0] = '\0';
		return "needs a /tmp to mount in";
	}
	if (mount(pmem, dir, "ext4", 0, options)) {
		rmdir(dir);
		dir[0] = '\0';
		return "this kernel has no ext4, or none with these options";
	}

	return NULL;
}

int pmem_unmount(char *dir)
{
	int ret = 0;

	if (!dir[0])
		return 0;

	if (umount2(dir, 0)) {
		ret = -errno;
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
	dir[0] = '\0';

	return ret;
}

/*
 * Access to memory that may be gone
 */
static __thread sigjmp_buf bus_env;
static __thread bool bus_armed;

static void bus_handler(int sig)
{
	if (bus_armed)
		siglongjmp(bus_env, 1);

	signal(sig, SIG_DFL);
	raise(sig);
}

static void __attribute__((constructor)) bus_init(void)
{
	struct sigaction sa = { .sa_handler = bus_handler, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

int bus_read32(const void *addr, uint32_t *val)
{
	uint32_t v;

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

/*
 * Odds and ends
 */
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

bool kernel_since(int major, int minor)
{
	struct utsname name;
	int x, y;

	if (uname(&name) || sscanf(name.release, "%d.%d", &x, &y) != 2)
		return false;

	return x > major || (x == major && y >= minor);
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

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

/* Memory with its pages in place */
void *ram_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

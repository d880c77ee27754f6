// SPDX-License-Identifier: GPL-2.0
/*
 * The CPU's mappings of a device's BARs: gone while the device's memory is disabled
 * or reset, there at all other times, wherever and however often they are mapped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_BAR		NEEDS("such a device, with a BAR that can be mapped,")
#define NO_RESET	NEEDS("a device that can be reset")

/* One device, opened, and one of its BARs, mapped and touched */
struct bar {
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	char bdf[BDF_LEN];
	u64 phys;
	u64 size;
	void *bar;
};

static void one_bar_setup(struct __test_metadata *_metadata, struct bar *b,
			  const struct pci_want *want, int index)
{
	if (pci_find(want, 0, b->bdf) < 0 || pci_bar(b->bdf, index, &b->phys, &b->size))
		SKIP(return, NO_BAR);

	/* Enough to have several pages, where there are */
	if (b->size > SZ_64K)
		b->size = SZ_64K;

	b->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&b->dev, b->bdf, b->iommu));
	if (!region_can_mmap(b->dev->fd, index))
		SKIP(return, NO_BAR);

	vfio_pci_cmd_set(b->dev, PCI_COMMAND_MEMORY);
	b->bar = bar_mmap(b->dev->fd, index, PROT_READ | PROT_WRITE, 0, b->size);
	ASSERT_NE(NULL, b->bar);
	ASSERT_EQ(0, bus_read32(b->bar, NULL));
	ASSERT_EQ(0, bus_read32(b->bar + b->size - SZ_4K, NULL));
}

static void bar_close(struct bar *b)
{
	dev_close(&b->dev);
	iommu_close(&b->iommu);
}

FIXTURE(bar) {
	struct bar b;
};

FIXTURE_VARIANT(bar) {
	const struct pci_want *want;
	int index;
};

FIXTURE_VARIANT_ADD(bar, edu_bar0) { .want = &want_edu, .index = 0 };
FIXTURE_VARIANT_ADD(bar, e1000e_bar1) { .want = &want_e1000e, .index = 1 };
FIXTURE_VARIANT_ADD(bar, ivshmem_bar2) { .want = &want_shm, .index = 2 };
FIXTURE_VARIANT_ADD(bar, e1000e_bar3) { .want = &want_e1000e, .index = 3 };

FIXTURE_SETUP(bar)
{
	one_bar_setup(_metadata, &self->b, variant->want, variant->index);
}

FIXTURE_TEARDOWN(bar)
{
	bar_close(&self->b);
}

static void expect_gone(struct __test_metadata *_metadata, const void *bar, size_t size)
{
	EXPECT_EQ(-EFAULT, bus_read32(bar, NULL));
	EXPECT_EQ(-EFAULT, bus_read32(bar + size - SZ_4K, NULL));
}

static void expect_there(struct __test_metadata *_metadata, const void *bar, size_t size)
{
	EXPECT_EQ(0, bus_read32(bar, NULL));
	EXPECT_EQ(0, bus_read32(bar + size - SZ_4K, NULL));
}

/* SIGBUS while memory is disabled, no longer and no shorter */
TEST_F_TIMEOUT(bar, unreachable_while_memory_is_disabled, TIMEOUT)
{
	int i;

	for (i = 0; i < 3; i++) {
		vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
		expect_gone(_metadata, self->b.bar, self->b.size);
		vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
		expect_there(_metadata, self->b.bar, self->b.size);
	}
}

/* Two mmaps of one file, and one of a second file */
TEST_F_TIMEOUT(bar, every_mmap_of_every_open_is_unreachable, TIMEOUT)
{
	void *same, *other;
	int fd;

	fd = dev_get_fd(self->b.dev);
	ASSERT_LE(0, fd);
	same = bar_mmap(self->b.dev->fd, variant->index, PROT_READ | PROT_WRITE, 0, self->b.size);
	ASSERT_NE(NULL, same);
	other = bar_mmap(fd, variant->index, PROT_READ, 0, self->b.size);
	ASSERT_NE(NULL, other);
	expect_there(_metadata, same, self->b.size);
	expect_there(_metadata, other, self->b.size);

	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, self->b.bar, self->b.size);
	expect_gone(_metadata, same, self->b.size);
	expect_gone(_metadata, other, self->b.size);

	/* The first fd is closed, what it mapped is found all the same */
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	expect_there(_metadata, same, self->b.size);
	dev_close_fd(self->b.dev);
	self->b.dev->fd = fd;
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, self->b.bar, self->b.size);
	expect_gone(_metadata, same, self->b.size);
	expect_gone(_metadata, other, self->b.size);
}

/* In a child, with what it inherited: read when told to, say what happened */
struct reader {
	pid_t pid;
	int go;
	int seen;
};

static int reader_start(struct reader *r, const void *addr, bool touch_first)
{
	int go[2], seen[2];
	char c = 0;

	if (pipe(go) || pipe(seen))
		return -errno;

	r->pid = fork();
	if (r->pid < 0)
		return -errno;

	if (!r->pid) {
		die_with_parent();
		close(go[1]);
		close(seen[0]);
		if (touch_first)
			c = !!bus_read32(addr, NULL);
		if (write(seen[1], &c, 1) != 1)
			_exit(1);
		while (read(go[0], &c, 1) == 1 && c != 'q') {
			c = !!bus_read32(addr, NULL);
			if (write(seen[1], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}

	close(go[0]);
	close(seen[1]);
	r->go = go[1];
	r->seen = seen[0];
	return read(r->seen, &c, 1) == 1 && !c ? 0 : -EIO;
}

/* 0: the memory was there, 1: SIGBUS */
static int reader_read(struct reader *r)
{
	char c = 0;

	if (write(r->go, &c, 1) != 1 || read(r->seen, &c, 1) != 1)
		return -EIO;

	return c;
}

static int reader_stop(struct reader *r)
{
	int status;
	char c = 'q';

	if (write(r->go, &c, 1) != 1)
		return -EIO;
	close(r->go);
	close(r->seen);
	return waitpid(r->pid, &status, 0) == r->pid ? status : -errno;
}

/* A child has copies of the mappings, whether it touched them or not */
TEST_F_TIMEOUT(bar, unreachable_in_a_forked_child, TIMEOUT)
{
	struct reader touched, untouched;

	ASSERT_EQ(0, reader_start(&touched, self->b.bar, true));
	ASSERT_EQ(0, reader_start(&untouched, self->b.bar, false));

	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(1, reader_read(&untouched));
	EXPECT_EQ(1, reader_read(&touched));
	EXPECT_EQ(-EFAULT, bus_read32(self->b.bar, NULL));

	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, reader_read(&untouched));
	EXPECT_EQ(0, reader_read(&touched));
	EXPECT_EQ(0, bus_read32(self->b.bar, NULL));
	EXPECT_EQ(0, reader_stop(&touched));
	EXPECT_EQ(0, reader_stop(&untouched));
}

/* The parent has given up its mapping, the child has not */
TEST_F_TIMEOUT(bar, unreachable_in_a_child_alone, TIMEOUT)
{
	struct reader r;

	ASSERT_EQ(0, reader_start(&r, self->b.bar, true));
	ASSERT_EQ(0, munmap(self->b.bar, self->b.size));
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(1, reader_read(&r));
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, reader_read(&r));
	EXPECT_EQ(0, reader_stop(&r));
}

static void *move(void *from, size_t size)
{
	void *to = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (to == MAP_FAILED)
		return NULL;
	to = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	return to == MAP_FAILED ? NULL : to;
}

/* mremap() moves the mapping and its page table entries with it */
TEST_F_TIMEOUT(bar, unreachable_after_mremap, TIMEOUT)
{
	void *moved;

	moved = move(self->b.bar, self->b.size);
	ASSERT_NE(NULL, moved);
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, moved, self->b.size);

	/* Moved while disabled */
	moved = move(moved, self->b.size);
	ASSERT_NE(NULL, moved);
	expect_gone(_metadata, moved, self->b.size);
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	expect_there(_metadata, moved, self->b.size);
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, moved, self->b.size);
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
}

/* What a munmap() in the middle leaves are two mappings */
TEST_F_TIMEOUT(bar, unreachable_after_partial_munmap, TIMEOUT)
{
	if (self->b.size < 3 * SZ_4K)
		SKIP(return, "the BAR has less than three pages");

	ASSERT_EQ(0, munmap(self->b.bar + SZ_4K, SZ_4K));
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, bus_read32(self->b.bar, NULL));
	EXPECT_EQ(-EFAULT, bus_read32(self->b.bar + 2 * SZ_4K, NULL));
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, bus_read32(self->b.bar, NULL));
	EXPECT_EQ(0, bus_read32(self->b.bar + 2 * SZ_4K, NULL));

	/* The first part goes, the last is still found */
	ASSERT_EQ(0, munmap(self->b.bar, SZ_4K));
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, bus_read32(self->b.bar + 2 * SZ_4K, NULL));
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, bus_read32(self->b.bar + 2 * SZ_4K, NULL));
}

/* And mprotect() splits and merges them */
TEST_F_TIMEOUT(bar, unreachable_after_mprotect, TIMEOUT)
{
	ASSERT_EQ(0, mprotect(self->b.bar, SZ_4K, PROT_READ));
	EXPECT_EQ(0, bus_read32(self->b.bar, NULL));
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, self->b.bar, self->b.size);
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
	ASSERT_EQ(0, mprotect(self->b.bar, SZ_4K, PROT_READ | PROT_WRITE));
	expect_there(_metadata, self->b.bar, self->b.size);
	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, self->b.bar, self->b.size);
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
}

/* Where in its file a mapping starts, by /proc/self/maps */
static long long mapping_offset(const void *addr)
{
	unsigned long long start, end, offset;
	long long ret = -1;
	char line[512];
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	if (!f)
		return -1;

	while (ret < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "%llx-%llx %*s %llx", &start, &end, &offset) == 3 &&
		    (uintptr_t)addr >= start && (uintptr_t)addr < end)
			ret = offset;
	fclose(f);

	return ret;
}

/* A mapping keeps the offset it was made with, it does not get a page frame number */
TEST_F_TIMEOUT(bar, file_offset_of_an_mmap_is_the_regions, TIMEOUT)
{
	struct vfio_region_info info;

	ASSERT_EQ(0, region_info(self->b.dev->fd, variant->index, &info));
	EXPECT_EQ((long long)info.offset, mapping_offset(self->b.bar));
	EXPECT_EQ(0, bus_read32(self->b.bar, NULL));
	EXPECT_EQ((long long)info.offset, mapping_offset(self->b.bar));
}

static long minor_faults(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) ? -1 : usage.ru_minflt;
}

/* The memory of other devices has nothing to do with it, and is not zapped either */
TEST_F_TIMEOUT(bar, other_devices_stay_reachable, TIMEOUT)
{
	long faults;
	struct vfio_pci_device *other;
	char bdf[BDF_LEN] = "";
	int other_bar;
	void *bar;

	other_bar = pci_find(&want_mem, 0, bdf);
	if (!strcmp(bdf, self->b.bdf))
		other_bar = pci_find(&want_mem, 1, bdf);
	if (other_bar < 0)
		SKIP(return, NEEDS("one more device with memory"));

	ASSERT_EQ(0, dev_open(&other, bdf, self->b.iommu));
	bar = bar_mmap(other->fd, other_bar, PROT_READ | PROT_WRITE, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	expect_there(_metadata, bar, SZ_64K);

	vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
	/* Once to have the stack and all else in place, then without a fault */
	minor_faults();
	bus_read32(&faults, NULL);
	faults = minor_faults();
	EXPECT_EQ(0, bus_read32(bar, NULL));
	EXPECT_EQ(faults, minor_faults());
	expect_there(_metadata, bar, SZ_64K);
	expect_gone(_metadata, self->b.bar, self->b.size);
	vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);

	munmap(bar, SZ_64K);
	dev_close(&other);
}

/*
 * Threads that read one BAR for as long as the test lets them
 */
#define READERS		4

/* Odd while memory may be disabled; a read between two equal even values must succeed */
struct touch {
	pthread_t thread[READERS];
	pthread_barrier_t barrier;
	void *bar;
	size_t size;
	bool steady;		/* memory stays enabled all along */
	unsigned int phase;
	bool stop;
	unsigned long reads;
	unsigned long faults;
	unsigned long bad_faults;	/* SIGBUS although memory was enabled */
	unsigned long bad_reads;	/* no SIGBUS although it was disabled, or no data */
};

#define PHASE_ENABLED	0
#define PHASE_CHANGING	1
#define PHASE_DISABLED	2
#define PHASES		4	/* enabled, changing, disabled, changing */

static void touch_page(struct touch *t, const void *addr)
{
	unsigned int before, after;
	u32 val;
	int ret;

	before = __atomic_load_n(&t->phase, __ATOMIC_SEQ_CST);
	ret = bus_read32(addr, &val);
	after = __atomic_load_n(&t->phase, __ATOMIC_SEQ_CST);

	__atomic_fetch_add(ret ? &t->faults : &t->reads, 1, __ATOMIC_RELAXED);
	if (before != after && !t->steady)
		return;
	if (ret && (before % PHASES == PHASE_ENABLED || t->steady))
		__atomic_fetch_add(&t->bad_faults, 1, __ATOMIC_RELAXED);
	if (!ret && before % PHASES == PHASE_DISABLED && !t->steady)
		__atomic_fetch_add(&t->bad_reads, 1, __ATOMIC_RELAXED);
	/* The registers at the start of these BARs never read as all ones */
	if (!ret && t->steady && addr == t->bar && val == ~0U)
		__atomic_fetch_add(&t->bad_reads, 1, __ATOMIC_RELAXED);
}

static void *touch_thread(void *arg)
{
	struct touch *t = arg;
	unsigned int round = 0;
	size_t off = 0;

	/* An emulator that runs one CPU at a time needs the others to sleep now and then */
	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		if (!(++round % 16))
			usleep(100);
		off = (off + SZ_4K) % t->size;
		touch_page(t, t->bar + off);
	}

	return NULL;
}

static int touch_start(struct touch *t, void *bar, size_t size, bool steady)
{
	int i;

	memset(t, 0, sizeof(*t));
	t->bar = bar;
	t->size = size;
	t->steady = steady;
	for (i = 0; i < READERS; i++)
		if (pthread_create(&t->thread[i], NULL, touch_thread, t))
			return -errno;

	return 0;
}

static void touch_stop(struct touch *t)
{
	int i;

	__atomic_store_n(&t->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < READERS; i++)
		pthread_join(t->thread[i], NULL);
	printf("# %lu reads, %lu SIGBUS\n", t->reads, t->faults);
}

/* Wait until the threads have done something in this phase */
static void touch_wait(struct touch *t)
{
	unsigned long reads = __atomic_load_n(&t->reads, __ATOMIC_RELAXED);
	unsigned long faults = __atomic_load_n(&t->faults, __ATOMIC_RELAXED);
	int tries = 1000;

	while (tries-- && __atomic_load_n(&t->reads, __ATOMIC_RELAXED) < reads + READERS &&
	       __atomic_load_n(&t->faults, __ATOMIC_RELAXED) < faults + READERS)
		usleep(1000);
}

static void touch_phase(struct touch *t)
{
	__atomic_fetch_add(&t->phase, 1, __ATOMIC_SEQ_CST);
}

/* These need one BAR, whichever */
FIXTURE(stress) {
	struct bar b;
};

FIXTURE_SETUP(stress)
{
	one_bar_setup(_metadata, &self->b, &want_edu, 0);
}

FIXTURE_TEARDOWN(stress)
{
	bar_close(&self->b);
}

static void *touch_once_thread(void *arg)
{
	struct touch *t = arg;
	size_t off;
	int round;

	for (round = 0; round < 40; round++) {
		pthread_barrier_wait(&t->barrier);
		for (off = 0; off < t->size; off += SZ_4K)
			if (bus_read32(t->bar + off, NULL))
				__atomic_fetch_add(&t->bad_faults, 1, __ATOMIC_RELAXED);
		pthread_barrier_wait(&t->barrier);
	}

	return NULL;
}

/* Threads that fault the same empty pages at the same moment */
TEST_F_TIMEOUT(stress, concurrent_faults_on_one_page_are_safe, TIMEOUT)
{
	struct touch t = { .bar = self->b.bar, .size = self->b.size };
	int i, round;

	ASSERT_EQ(0, pthread_barrier_init(&t.barrier, NULL, READERS + 1));
	for (i = 0; i < READERS; i++)
		ASSERT_EQ(0, pthread_create(&t.thread[i], NULL, touch_once_thread, &t));

	for (round = 0; round < 40; round++) {
		/* Empties the page tables */
		vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
		vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
		pthread_barrier_wait(&t.barrier);
		pthread_barrier_wait(&t.barrier);
	}
	for (i = 0; i < READERS; i++)
		pthread_join(t.thread[i], NULL);

	EXPECT_EQ(0, t.bad_faults);
}

/* Many threads, SIGBUS exactly while memory is disabled */
TEST_F_TIMEOUT(stress, concurrent_faults_raise_sigbus_only_while_disabled, TIMEOUT)
{
	struct touch t;
	int i;

	ASSERT_EQ(0, touch_start(&t, self->b.bar, self->b.size, false));
	for (i = 0; i < 30; i++) {
		touch_wait(&t);
		touch_phase(&t);
		vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(&t);
		touch_wait(&t);
		touch_phase(&t);
		vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(&t);
	}
	touch_stop(&t);

	EXPECT_EQ(0, t.bad_faults);
	EXPECT_EQ(0, t.bad_reads);
	EXPECT_LT(0, t.reads);
	EXPECT_LT(0, t.faults);
}

/* Children come and go with copies of the mapping while memory goes and comes */
TEST_F_TIMEOUT(stress, fork_and_exit_while_memory_is_toggled, TIMEOUT)
{
	struct touch *t;
	int i, n, status;
	void *moved;
	pid_t pid;

	/* Shared, so that children count as the threads do */
	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, t);
	ASSERT_EQ(0, touch_start(t, self->b.bar, self->b.size, false));

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		die_with_parent();
		for (i = 0; i < 15; i++) {
			pid = fork();
			if (!pid) {
				for (n = 0; n < 16; n++, usleep(100))
					touch_page(t, self->b.bar);
				moved = move(self->b.bar, self->b.size);
				if (!moved)
					_exit(1);
				for (n = 0; n < 16; n++, usleep(100))
					touch_page(t, moved);
				_exit(0);
			}
			touch_page(t, self->b.bar);
			if (waitpid(pid, &status, 0) != pid || status)
				_exit(1);
		}
		_exit(0);
	}

	while (!waitpid(pid, &status, WNOHANG)) {
		touch_wait(t);
		touch_phase(t);
		vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(t);
		touch_wait(t);
		touch_phase(t);
		vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(t);
	}
	touch_stop(t);

	EXPECT_EQ(0, status);
	EXPECT_EQ(0, t->bad_faults);
	EXPECT_EQ(0, t->bad_reads);
	munmap(t, sizeof(*t));
}

/* read() of a BAR into the mmap of a BAR while memory is toggled */
TEST_F_TIMEOUT(stress, read_and_write_with_a_bar_as_the_buffer, TIMEOUT)
{
	struct vfio_region_info info;
	struct touch t;
	ssize_t n;
	int i;

	ASSERT_EQ(0, region_info(self->b.dev->fd, 0, &info));
	ASSERT_EQ(0, touch_start(&t, self->b.bar, self->b.size, false));
	for (i = 0; i < 30; i++) {
		touch_phase(&t);
		vfio_pci_cmd_clear(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(&t);
		touch_wait(&t);
		n = pread(self->b.dev->fd, self->b.bar, 4, info.offset);
		EXPECT_EQ(-1, n);
		touch_phase(&t);
		vfio_pci_cmd_set(self->b.dev, PCI_COMMAND_MEMORY);
		touch_phase(&t);
		/* The second register inverts what is written to it */
		EXPECT_EQ(4, pread(self->b.dev->fd, self->b.bar + 4, 4, info.offset));
		EXPECT_EQ(4, pwrite(self->b.dev->fd, self->b.bar, 4, info.offset + 4));
	}
	touch_stop(&t);
	EXPECT_EQ(0, t.bad_faults);
	EXPECT_EQ(0, t.bad_reads);
}

/*
 * Resets.  The device's memory is enabled before and after, so nobody may get a
 * SIGBUS: accesses wait until the reset is over.
 */
FIXTURE(reset) {
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	char bdf[BDF_LEN];
	void *bar;
	size_t size;
};

FIXTURE_VARIANT(reset) {
	const struct pci_want *want;
	int resets;
};

/* The first takes a second for each reset of its bus, the second has a function level reset */
FIXTURE_VARIANT_ADD(reset, edu) { .want = &want_edu_slot, .resets = 4 };
FIXTURE_VARIANT_ADD(reset, e1000e) { .want = &want_e1000e, .resets = 20 };

FIXTURE_SETUP(reset)
{
	if (pci_find(variant->want, 0, self->bdf) < 0)
		SKIP(return, NO_RESET);

	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&self->dev, self->bdf, self->iommu));
	if (!dev_can_reset(self->dev))
		SKIP(return, NO_RESET);

	vfio_pci_cmd_set(self->dev, PCI_COMMAND_MEMORY);
	self->size = SZ_64K;
	self->bar = bar_mmap(self->dev->fd, 0, PROT_READ | PROT_WRITE, 0, self->size);
	ASSERT_NE(NULL, self->bar);
}

FIXTURE_TEARDOWN(reset)
{
	dev_close(&self->dev);
	iommu_close(&self->iommu);
}

/* Faults wait for the reset */
TEST_F_TIMEOUT(reset, faults_wait_for_a_reset, TIMEOUT)
{
	struct touch t;
	int i;

	ASSERT_EQ(0, touch_start(&t, self->bar, self->size, true));
	for (i = 0; i < variant->resets; i++) {
		touch_wait(&t);
		EXPECT_EQ(0, __vfio_pci_device_reset(self->dev));
	}
	touch_wait(&t);
	touch_stop(&t);

	EXPECT_EQ(0, t.faults);
	EXPECT_EQ(0, t.bad_reads);
	EXPECT_LT(0, t.reads);
}

/* A hot reset is held off by nobody for ever: it works, or it says EBUSY */
TEST_F_TIMEOUT(reset, faults_wait_for_a_hot_reset, TIMEOUT)
{
	int i, ret, busy = 0, done = 0;
	struct touch t;

	ret = dev_hot_reset(self->dev);
	if (ret == -ENODEV || ret == -ENOTTY)
		SKIP(return, "no hot reset here");

	ASSERT_EQ(0, touch_start(&t, self->bar, self->size, true));
	for (i = 0; i < 50 && done < 3; i++) {
		touch_wait(&t);
		ret = dev_hot_reset(self->dev);
		EXPECT_TRUE(!ret || ret == -EBUSY);
		if (ret)
			busy++;
		else
			done++;
	}
	touch_wait(&t);
	touch_stop(&t);
	printf("# %d hot resets, %d times busy\n", done, busy);

	EXPECT_LT(0, done);
	EXPECT_EQ(0, t.faults);
	EXPECT_EQ(0, t.bad_reads);
}

/* The kernel itself reads from the BAR, on behalf of a system call */
TEST_F_TIMEOUT(reset, system_calls_wait_for_a_reset, TIMEOUT)
{
	int i, fd[2], status;
	char buf[64];
	pid_t pid;

	ASSERT_EQ(0, pipe(fd));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		die_with_parent();
		for (i = 0; i < variant->resets; i++) {
			usleep(20000);
			if (__vfio_pci_device_reset(self->dev))
				_exit(1);
		}
		_exit(0);
	}

	while (!waitpid(pid, &status, WNOHANG)) {
		/* EFAULT here is what SIGBUS is to user space */
		ASSERT_EQ(4, write(fd[1], self->bar, 4));
		ASSERT_EQ(4, read(fd[0], buf, 4));
	}
	EXPECT_EQ(0, status);
}

/* Nothing but a time that is enough for an emulator with other things to do */
FIXTURE(region) {
};

FIXTURE_SETUP(region)
{
}

FIXTURE_TEARDOWN(region)
{
}

/* The arguments of a hot reset are in a BAR of the device that is reset */
TEST_F_TIMEOUT(region, hot_reset_with_its_arguments_in_the_bar, TIMEOUT)
{
	struct vfio_pci_hot_reset *arg;
	struct vfio_pci_device *dev;
	char bdf[BDF_LEN];
	struct iommu *iommu;
	int index;
	void *bar;

	index = pci_find(&want_mem_slot, 0, bdf);
	if (index < 0)
		SKIP(return, NEEDS("a device with memory in a slot"));

	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&dev, bdf, iommu));
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	bar = bar_mmap(dev->fd, index, PROT_READ | PROT_WRITE, 0, SZ_4K);
	ASSERT_NE(NULL, bar);

	arg = bar;
	arg->argsz = sizeof(*arg) + sizeof(arg->group_fds[0]);
	arg->flags = 0;
	arg->count = 1;
	arg->group_fds[0] = dev->group_fd;
	EXPECT_EQ(0, ioctl(dev->fd, VFIO_DEVICE_PCI_HOT_RESET, arg));
	EXPECT_EQ(0, bus_read32(bar, NULL));

	munmap(bar, SZ_4K);
	dev_close(&dev);
	iommu_cleanup(iommu);
}

/* Memory that the memory enable bit does not govern stays where it is */
TEST_F_TIMEOUT(region, device_specific_regions_stay_reachable, TIMEOUT)
{
	unsigned int i, found = 0;
	struct vfio_pci_device *dev;
	char bdf[BDF_LEN];
	struct iommu *iommu;
	void *p;

	if (pci_find(&want_edu, 0, bdf) < 0)
		SKIP(return, NEEDS("an edu device"));

	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&dev, bdf, iommu));
	for (i = VFIO_PCI_CONFIG_REGION_INDEX; i < dev->info.num_regions; i++) {
		p = bar_mmap(dev->fd, i, PROT_READ, 0, SZ_4K);
		if (!p)
			continue;
		found++;
		ASSERT_EQ(0, bus_read32(p, NULL));
		vfio_pci_cmd_clear(dev, PCI_COMMAND_MEMORY);
		EXPECT_EQ(0, bus_read32(p, NULL));
		vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
		munmap(p, SZ_4K);
	}
	dev_close(&dev);
	iommu_cleanup(iommu);

	if (!found)
		SKIP(return, "no device with a region other than a BAR that can be mapped");
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

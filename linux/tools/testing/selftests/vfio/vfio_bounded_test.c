// SPDX-License-Identifier: GPL-2.0
/*
 * Whoever closes, resets or disables a device waits for nobody who has its memory mapped:
 * not for what else their container is doing, not for their address space, and not for
 * their memory to be unpinned.
 *
 * The mapper is a process of its own, with the container that B's memory is mapped in for
 * A.  It stands still, in the kernel, with the locks held that matter, until it is told to
 * go on.  What is to be bounded is done by the test, and by threads of it, so that it
 * can tell that one did not return, and go on.
 *
 * Needs fault_gate/fault_gate.ko in the current directory, or loaded.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

/* A look can take a list of all pages of 256 MiB */
#define TIMEOUT		600

#define NO_DEVICES	NEEDS("an edu device and one with memory in a slot")
#define NO_GATE		"needs fault_gate.ko in the current directory"

#define GATE		"/dev/fault_gate"
#define GATE_MMAP	(1024UL * SZ_4K)	/* where mmap() waits */

#define MAP_SIZE	SZ_64K
#define IOVA_RAM	(IOVA_BAR + SZ_1M)

/* What takes longer waits for somebody: a reset takes less than two, the rest nothing */
#define BOUND_MS	5000

static int gate_waiting(int gate)
{
	char buf[16] = "";

	return pread(gate, buf, sizeof(buf) - 1, 0) < 0 ? -errno : atoi(buf);
}

static bool gate_set(int gate, bool open)
{
	return write(gate, open ? "1" : "0", 1) == 1;
}

static bool wait_until_waiting(int gate, int n)
{
	u64 deadline = now_us() + 20 * 1000000;

	while (gate_waiting(gate) < n && now_us() < deadline)
		usleep(1000);

	return gate_waiting(gate) >= n;
}

/* What the mapper is in the middle of */
enum place {
	IN_A_FAULT,		/* MAP_DMA, in a page fault: the container and mmap_lock, read */
	IN_A_FAULT_BEHIND,	/* the same, of the mapping that B's memory is in, after that */
	IN_MMAP,		/* mmap_lock, written; the container is idle */
	IN_BOTH,		/* and MAP_DMA waits for it, with the container */
	NOWHERE,		/* 256 MiB of RAM in the same mapping as a page of B's memory */
};

#define MUCH_RAM	(256UL * SZ_1M)

FIXTURE(bounded) {
	struct p2p p;
	int gate;
	int to_mapper, from_mapper;
	pid_t mapper;
	void *bar;
};

FIXTURE_VARIANT(bounded) {
	enum place place;
};

FIXTURE_VARIANT_ADD(bounded, in_a_fault) { .place = IN_A_FAULT };
FIXTURE_VARIANT_ADD(bounded, in_a_fault_behind) { .place = IN_A_FAULT_BEHIND };
FIXTURE_VARIANT_ADD(bounded, in_mmap) { .place = IN_MMAP };
FIXTURE_VARIANT_ADD(bounded, in_map_and_mmap) { .place = IN_BOTH };
FIXTURE_VARIANT_ADD(bounded, with_much_ram) { .place = NOWHERE };

static void *mmap_thread(void *arg)
{
	int gate = *(int *)arg;

	mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED, gate, GATE_MMAP);
	return NULL;
}

/* What the mapper tells in the end */
struct result {
	int mapped;		/* 0, or what MAP_DMA failed with */
	long kb, kb_after;	/* locked, before the test has done anything and after */
	s64 unmapped;		/* what UNMAP_DMA returned, where that was asked for */
};

static size_t area_size(enum place place)
{
	return MAP_SIZE + (place == NOWHERE ? MUCH_RAM : SZ_64K);
}

/* What IOVA_BAR is the beginning of */
static size_t mapped_size(enum place place)
{
	return place == NOWHERE ? area_size(place) : MAP_SIZE;
}

/* What the mapper is told in the end */
#define GO_ON	'1'
#define UNMAP	'u'

/*
 * Runs in the mapper, which has inherited A's container and B.  It gives B's file and mmaps
 * up, but for IN_A_FAULT_BEHIND, whose last mmap of B goes when the test says so.
 */
static int mapper(struct p2p *p, enum place place, int gate, int in, int out)
{
	struct result r = {};
	pthread_t thread;
	void *area, *ram;
	char c;

	die_with_parent();
	area = mmap(NULL, area_size(place), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return 1;
	ram = area + MAP_SIZE;
	madvise(ram, area_size(place) - MAP_SIZE, MADV_HUGEPAGE);
	if (place != IN_MMAP && place != NOWHERE &&
	    mmap(ram, SZ_64K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, gate, 0) != ram)
		return 2;
	if (!bar_mmap_at(area, p->b->fd, p->bar, PROT_READ | PROT_WRITE, 0, MAP_SIZE))
		return 3;
	close(p->b->fd);
	close(p->b->group_fd);

	if (place != IN_A_FAULT_BEHIND &&
	    dma_map(p->iommu, IOVA_BAR, area, mapped_size(place), DMA_RW))
		return 4;
	if (place != IN_A_FAULT_BEHIND)
		munmap(area, MAP_SIZE);
	/* While a thread has mmap_lock, this one must not need it for a page fault */
	if ((place == IN_MMAP || place == IN_BOTH) && mlockall(MCL_CURRENT))
		return 10;
	r.kb = proc_locked_kb();

	if (place != NOWHERE)
		gate_set(gate, false);
	if (place == IN_MMAP || place == IN_BOTH) {
		if (pthread_create(&thread, NULL, mmap_thread, &gate))
			return 5;
		if (!wait_until_waiting(gate, 1))
			return 6;
	}
	/* Nothing below needs mmap_lock but what is meant to wait for it */
	if (write(out, "1", 1) != 1)
		return 7;
	if (place == IN_A_FAULT || place == IN_BOTH)
		r.mapped = dma_map(p->iommu, IOVA_RAM, ram, SZ_64K, DMA_RW);
	else if (place == IN_A_FAULT_BEHIND)
		r.mapped = dma_map(p->iommu, IOVA_BAR, area, area_size(place), DMA_RW);
	if (read(in, &c, 1) != 1)
		return 8;

	if (place == IN_MMAP || place == IN_BOTH)
		pthread_join(thread, NULL);
	if (place == IN_A_FAULT_BEHIND)
		munmap(area, MAP_SIZE);
	r.kb_after = proc_locked_kb();
	/* Who has mapped it */
	if (c == UNMAP)
		r.unmapped = dma_unmap(p->iommu, IOVA_BAR, mapped_size(place));
	return write(out, &r, sizeof(r)) == sizeof(r) ? 0 : 9;
}

FIXTURE_SETUP(bounded)
{
	int in[2], out[2], ret;
	char c;

	ret = p2p_open(&self->p, &want_mem_slot);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	ret = access(GATE, F_OK) ? module_load("fault_gate.ko") : 0;
	if (ret)
		SKIP(return, NO_GATE);
	self->gate = open(GATE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->gate);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	ASSERT_EQ(0, pipe2(in, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(out, O_CLOEXEC));
	self->mapper = fork();
	ASSERT_LE(0, self->mapper);
	if (!self->mapper)
		_exit(mapper(&self->p, variant->place, self->gate, in[0], out[1]));
	close(in[0]);
	close(out[1]);
	self->to_mapper = in[1];
	self->from_mapper = out[0];
	ASSERT_EQ(1, read(self->from_mapper, &c, 1));

	/* It is where it has to be */
	if (variant->place != NOWHERE)
		ASSERT_TRUE(wait_until_waiting(self->gate, 1));
	if (variant->place == IN_BOTH)
		sleep(1);
	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
}

FIXTURE_TEARDOWN(bounded)
{
	gate_set(self->gate, true);
	if (self->mapper > 0) {
		kill(self->mapper, SIGKILL);
		waitpid(self->mapper, NULL, 0);
	}
	fd_close(&self->gate);
	p2p_close(&self->p);
}

/* Something that is done to B, in a thread */
struct act {
	pthread_t thread;
	int (*what)(struct p2p *p);
	struct p2p *p;
	int ret;
	bool done;
};

static void *act_thread(void *arg)
{
	struct act *a = arg;

	a->ret = a->what(a->p);
	__atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static int disable(struct p2p *p)
{
	vfio_pci_cmd_clear(p->b, PCI_COMMAND_MEMORY);
	return 0;
}

static int enable(struct p2p *p)
{
	vfio_pci_cmd_set(p->b, PCI_COMMAND_MEMORY);
	return 0;
}

static int reset(struct p2p *p)
{
	return __vfio_pci_device_reset(p->b);
}

static int hot_reset(struct p2p *p)
{
	return dev_hot_reset(p->b);
}

static int close_device(struct p2p *p)
{
	dev_close_fd(p->b);
	return 0;
}

/*
 * Has it returned within the bound, while the mapper is where it was?  If not, the mapper
 * goes on, so that it can.
 */
static bool returns(struct __test_metadata *_metadata, struct p2p *p, int gate,
		    int (*what)(struct p2p *p))
{
	struct act a = { .what = what, .p = p };
	u64 deadline = now_us() + BOUND_MS * 1000;
	int before = gate_waiting(gate);
	bool in_time;

	ASSERT_EQ(0, pthread_create(&a.thread, NULL, act_thread, &a));
	while (!__atomic_load_n(&a.done, __ATOMIC_ACQUIRE) && now_us() < deadline)
		usleep(1000);
	in_time = __atomic_load_n(&a.done, __ATOMIC_ACQUIRE);
	EXPECT_EQ(before, gate_waiting(gate));
	if (!in_time)
		gate_set(gate, true);
	pthread_join(a.thread, NULL);
	EXPECT_EQ(0, a.ret);

	return in_time;
}

/* Let the mapper go on to its end, and have it tell what it has seen */
static struct result mapper_ends(struct __test_metadata *_metadata,
				 struct _test_data_bounded *self, char what)
{
	struct result r = {};
	int status;

	EXPECT_TRUE(gate_set(self->gate, true));
	EXPECT_EQ(1, write(self->to_mapper, &what, 1));
	EXPECT_EQ(sizeof(r), read(self->from_mapper, &r, sizeof(r)));
	EXPECT_EQ(self->mapper, waitpid(self->mapper, &status, 0));
	EXPECT_EQ(0, status);
	self->mapper = 0;

	return r;
}

static bool is_gone(struct p2p *p)
{
	return iommu_lookup(p->bdf_a, IOVA_BAR, NULL) != 1 &&
	       iommu_lookup(p->bdf_a, IOVA_BAR + MAP_SIZE - SZ_4K, NULL) != 1;
}

/* Disabling and enabling memory, and resets */
TEST_F_TIMEOUT(bounded, suspend, TIMEOUT)
{
	struct result r;

	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, disable));
	EXPECT_TRUE(is_gone(&self->p));
	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, enable));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, reset));
	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, hot_reset));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));

	/* It is complete when the mapper has gone on, with what was away then */
	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, disable));
	r = mapper_ends(_metadata, self, GO_ON);
	EXPECT_EQ(0, r.mapped);
	EXPECT_TRUE(is_gone(&self->p));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
}

static long vmstat_read(const char *key)
{
	char line[128];
	long val = -1;
	FILE *f = fopen("/proc/vmstat", "re");

	while (f && val < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ' ')
			val = atol(line + strlen(key));
	if (f)
		fclose(f);

	return val;
}

/*
 * close() unpins nothing: that is for whoever unmaps.  The kernel counts pages that are
 * unpinned, by CPU and not exactly.
 */
TEST_F_TIMEOUT(bounded, close, TIMEOUT)
{
	const long inexact = 2048, pages = MUCH_RAM / SZ_4K;
	enum place place = variant->place;
	long unpinned, now;
	struct result r;

	if (place == IN_A_FAULT_BEHIND)
		SKIP(return, "the mapper holds the device open");

	unpinned = vmstat_read("nr_foll_pin_released");
	EXPECT_TRUE(returns(_metadata, &self->p, self->gate, close_device));
	EXPECT_TRUE(is_gone(&self->p));
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));
	now = vmstat_read("nr_foll_pin_released");
	EXPECT_GT(unpinned + inexact, now);

	r = mapper_ends(_metadata, self, UNMAP);
	EXPECT_EQ(0, r.mapped);
	EXPECT_EQ(r.kb + (place == IN_A_FAULT || place == IN_BOTH ? 64 : 0), r.kb_after);
	EXPECT_EQ(mapped_size(place), r.unmapped);
	if (place == NOWHERE && unpinned >= 0)
		EXPECT_LT(now + pages - inexact, vmstat_read("nr_foll_pin_released"));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * A device's release against everything else that may happen at the same moment.
 * However a race ends, nothing of the device is mapped after its release, nothing
 * hangs, and whatever was closed can be opened again at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		600

#define NO_DEVICES	NEEDS("an edu device and one with memory")
#define NO_CONTAINERS	NEEDS("two edu devices and one with memory")
#define NO_VISITOR	NEEDS("an edu device and two with memory")

#define THREADS		3
#define STRIDE		SZ_64K

/* Device A in its container; B is opened by the tests */
FIXTURE(race) {
	struct p2p p;
};

FIXTURE_SETUP(race)
{
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);
}

FIXTURE_TEARDOWN(race)
{
	p2p_close(&self->p);
}

static void nap(int round)
{
	/* From nothing to a millisecond, a different time in every round */
	usleep(round * 37 % 1000);
}

/*
 * Takes the BAR away but not its address: what is there afterwards cannot be mapped
 * for DMA, and nobody else gets the address.
 */
static void lose_bar(void *bar, size_t size)
{
	mmap(bar, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

/* Threads that map, and threads that unmap, until they are told to stop */
struct crowd {
	pthread_t thread[THREADS];
	pthread_barrier_t start;
	int running;
	struct iommu *iommu;
	void *bar;
	unsigned int slots;	/* IOVAs for each thread */
	bool stop;
	bool keep;		/* do not unmap */
	bool may_end;		/* the container may be without an IOMMU */
	int last_error;
	unsigned long mapped;
	unsigned long refused;
	unsigned long errors;
};

struct crowd_thread {
	struct crowd *crowd;
	int nr;
};

static struct crowd_thread crowd_threads[THREADS];

static u64 crowd_iova(const struct crowd *c, int nr, unsigned int slot)
{
	return IOVA_BAR + (nr * c->slots + slot % c->slots) * STRIDE;
}

static void *crowd_map(void *arg)
{
	struct crowd_thread *t = arg;
	struct crowd *c = t->crowd;
	unsigned int slot = 0;
	s64 unmapped;
	u64 iova;
	int ret;

	pthread_barrier_wait(&c->start);
	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		iova = crowd_iova(c, t->nr, slot++);
		ret = dma_map(c->iommu, iova, c->bar, STRIDE, DMA_RW);
		if (!ret) {
			__atomic_fetch_add(&c->mapped, 1, __ATOMIC_RELAXED);
			if (c->keep)
				continue;
			/* Ours, whether the device was released meanwhile or not */
			unmapped = dma_unmap(c->iommu, iova, STRIDE);
			if (unmapped != STRIDE &&
			    !((!unmapped || unmapped == -EINVAL) && c->may_end))
				__atomic_fetch_add(&c->errors, 1, __ATOMIC_RELAXED);
		} else if (ret == -EFAULT || ret == -EEXIST || (ret == -EINVAL && c->may_end)) {
			__atomic_fetch_add(&c->refused, 1, __ATOMIC_RELAXED);
			if (c->keep && slot >= c->slots)
				usleep(200);
		} else {
			__atomic_fetch_add(&c->errors, 1, __ATOMIC_RELAXED);
			__atomic_store_n(&c->last_error, -ret, __ATOMIC_RELAXED);
		}
	}

	return NULL;
}

static void *crowd_unmap(void *arg)
{
	struct crowd_thread *t = arg;
	struct crowd *c = t->crowd;
	unsigned int slot;
	s64 unmapped;

	pthread_barrier_wait(&c->start);
	for (slot = 0; slot < c->slots; slot++) {
		unmapped = dma_unmap(c->iommu, crowd_iova(c, t->nr, slot), STRIDE);
		if (unmapped != STRIDE)
			__atomic_fetch_add(&c->errors, 1, __ATOMIC_RELAXED);
	}

	return NULL;
}

static int crowd_start(struct crowd *c, void *(*fn)(void *arg))
{
	int ret = 0;

	c->stop = false;
	pthread_barrier_init(&c->start, NULL, THREADS + 1);
	for (c->running = 0; c->running < THREADS && !ret; c->running++) {
		crowd_threads[c->running].crowd = c;
		crowd_threads[c->running].nr = c->running;
		ret = pthread_create(&c->thread[c->running], NULL, fn,
				     &crowd_threads[c->running]);
	}
	if (!ret)
		pthread_barrier_wait(&c->start);

	return -ret;
}

static void crowd_stop(struct crowd *c)
{
	__atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
	while (c->running)
		pthread_join(c->thread[--c->running], NULL);
}

static void crowd_judge(struct __test_metadata *_metadata, const struct crowd *c)
{
	printf("# %lu mapped, %lu refused\n", c->mapped, c->refused);
	EXPECT_EQ(0, c->errors)
		TH_LOG("the last error was: %s", strerror(c->last_error));
}

/* Whoever comes first, what is left is nothing */
TEST_F_TIMEOUT(race, map_racing_release_leaves_no_mapping, TIMEOUT)
{
	struct crowd c = { .slots = 32, .keep = true };
	s64 avail = dma_avail(self->p.iommu);
	int round, left = 0;

	c.iommu = self->p.iommu;
	for (round = 0; round < 40; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		c.bar = p2p_bar(&self->p, 0, STRIDE);
		ASSERT_NE(NULL, c.bar);
		ASSERT_EQ(0, crowd_start(&c, crowd_map));
		nap(round);
		dev_close(&self->p.b);
		nap(round / 2);
		lose_bar(c.bar, STRIDE);

		/* The threads still try */
		left += iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) == 1;
		crowd_stop(&c);
		left += iommu_count(self->p.bdf_a, IOVA_BAR, THREADS * c.slots * STRIDE) > 0;
		ASSERT_LE(0, dma_unmap(self->p.iommu, IOVA_BAR, THREADS * c.slots * STRIDE));
		left += dma_avail(self->p.iommu) != avail;
		munmap(c.bar, STRIDE);
	}
	crowd_judge(_metadata, &c);
	EXPECT_EQ(0, left);
	EXPECT_LT(0, c.mapped);
}

/* The same with mappings that come and go all the time */
TEST_F_TIMEOUT(race, map_and_unmap_racing_release_leave_no_mapping, TIMEOUT)
{
	struct crowd c = { .slots = 32 };
	int round, left = 0;

	c.iommu = self->p.iommu;
	for (round = 0; round < 40; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		c.bar = p2p_bar(&self->p, 0, STRIDE);
		ASSERT_NE(NULL, c.bar);
		ASSERT_EQ(0, crowd_start(&c, crowd_map));
		nap(round);
		lose_bar(c.bar, STRIDE);
		dev_close(&self->p.b);
		left += iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) == 1;
		crowd_stop(&c);
		left += dma_unmap(self->p.iommu, IOVA_BAR, THREADS * c.slots * STRIDE) != 0;
		munmap(c.bar, STRIDE);
	}
	crowd_judge(_metadata, &c);
	EXPECT_EQ(0, left);
}

/* The user unmaps what the release is about to remove */
TEST_F_TIMEOUT(race, unmap_racing_release, TIMEOUT)
{
	struct crowd c = { .slots = 64 };
	int round, nr, left = 0;
	unsigned int slot;
	s64 avail;

	avail = dma_avail(self->p.iommu);
	c.iommu = self->p.iommu;
	for (round = 0; round < 30; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		c.bar = p2p_bar(&self->p, 0, STRIDE);
		ASSERT_NE(NULL, c.bar);
		for (nr = 0; nr < THREADS; nr++)
			for (slot = 0; slot < c.slots; slot++)
				ASSERT_EQ(0, dma_map(c.iommu, crowd_iova(&c, nr, slot), c.bar,
						     STRIDE, DMA_RW));
		ASSERT_EQ(0, crowd_start(&c, crowd_unmap));
		nap(round);
		p2p_release(&self->p, c.bar, STRIDE);
		left += iommu_lookup(self->p.bdf_a, crowd_iova(&c, THREADS - 1, c.slots - 1),
				     NULL) == 1;
		crowd_stop(&c);
		left += dma_avail(self->p.iommu) != avail;
	}
	EXPECT_EQ(0, left);
	EXPECT_EQ(0, c.errors)
		TH_LOG("the last error was: %s", strerror(c.last_error));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
}

/* A group that has left its container has left no mapping of its device */
static void *detach_thread(void *arg)
{
	struct p2p *p = arg;
	int ret;

	do {
		ret = group_detach(p->b);
	} while (ret == -EBUSY);

	/* The moment it has left */
	if (!ret && iommu_lookup(p->bdf_a, IOVA_BAR, NULL) == 1)
		ret = 1;

	return (void *)(intptr_t)ret;
}

TEST_F_TIMEOUT(race, group_leaves_only_after_the_mappings_are_gone, TIMEOUT)
{
	pthread_t thread;
	void *bar, *ret;
	int round;

	for (round = 0; round < 40; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		bar = p2p_bar(&self->p, 0, STRIDE);
		ASSERT_NE(NULL, bar);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, STRIDE, DMA_RW));
		ASSERT_EQ(0, pthread_create(&thread, NULL, detach_thread, &self->p));
		nap(round);
		dev_close_fd(self->p.b);
		munmap(bar, STRIDE);
		pthread_join(thread, &ret);
		EXPECT_EQ(NULL, ret);
		dev_close(&self->p.b);
		EXPECT_EQ(STRIDE, dma_unmap(self->p.iommu, IOVA_BAR, STRIDE));
	}
}

/* Groups that join and leave the container of the mapping, which may be its last */
struct visitor {
	pthread_t thread;
	char bdf[BDF_LEN];
	struct iommu *iommu;
	bool stop;
	unsigned long visits;
	int ret;
};

static void *visitor_thread(void *arg)
{
	struct visitor *v = arg;
	struct vfio_pci_device *dev;

	while (!__atomic_load_n(&v->stop, __ATOMIC_RELAXED)) {
		v->ret = dev_open(&dev, v->bdf, v->iommu);
		if (v->ret)
			break;
		dev_close(&dev);
		v->visits++;
	}

	return NULL;
}

/* A group that joins gets the mappings that are there, and none that are not */
TEST_F_TIMEOUT(race, groups_come_and_go_during_release, TIMEOUT)
{
	struct visitor v = { .ret = 0 };
	int round, i;
	void *bar;

	/* Not in a slot, which would be reset at each visit */
	if (pci_find(&want_mem, 1, v.bdf) < 0)
		SKIP(return, NO_VISITOR);

	v.iommu = self->p.iommu;
	ASSERT_EQ(0, pthread_create(&v.thread, NULL, visitor_thread, &v));
	for (round = 0; round < 30; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		bar = p2p_bar(&self->p, 0, SZ_1M);
		ASSERT_NE(NULL, bar);
		for (i = 0; i < 16; i++)
			ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * STRIDE,
					     bar + i * STRIDE, STRIDE, DMA_RW));
		nap(round);
		p2p_release(&self->p, bar, SZ_1M);
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
		EXPECT_EQ(SZ_1M, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));
	}
	__atomic_store_n(&v.stop, true, __ATOMIC_RELAXED);
	pthread_join(v.thread, NULL);
	EXPECT_EQ(0, v.ret);
	EXPECT_LT(0, v.visits);
	printf("# %lu visits\n", v.visits);
}

/* The container of the mapper goes at the moment the device goes */
static void *close_mapper_thread(void *arg)
{
	struct p2p *p = arg;

	p2p_close_mapper(p);

	return NULL;
}

TEST_F_TIMEOUT(race, close_of_the_mappers_container_racing_release, TIMEOUT)
{
	struct iommu *iommu;
	int round, i;
	pthread_t thread;
	void *bar;

	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	group_patience_ms = 0;
	for (round = 0; round < 40; round++) {
		ASSERT_EQ(0, p2p_open_peer_in(&self->p, iommu));
		bar = p2p_bar(&self->p, 0, SZ_1M);
		ASSERT_NE(NULL, bar);
		for (i = 0; i < 16; i++)
			ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * STRIDE,
					     bar + i * STRIDE, STRIDE, DMA_RW));
		ASSERT_EQ(0, dma_map(iommu, IOVA_BAR, bar, SZ_1M, DMA_RW));
		munmap(bar, SZ_1M);

		/* What takes its time comes first, so that the thread has nothing but to close */
		vfio_pci_driver_remove(self->p.a);
		ASSERT_EQ(0, pthread_create(&thread, NULL, close_mapper_thread, &self->p));
		nap(round);
		dev_close(&self->p.b);
		pthread_join(thread, NULL);

		/* All of it is there again at once */
		p2p_close(&self->p);
		ASSERT_EQ(0, p2p_open(&self->p, &want_mem));
		EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));
	}
	iommu_cleanup(iommu);
}

/*
 * Two processes, one with the mapping and one with the device, die together, in either
 * order, or the owner alone
 */
TEST_F_TIMEOUT(race, mapper_and_owner_are_killed_together, TIMEOUT)
{
	struct iommu *iommu;
	int sock[2], round, i;
	pid_t pid, mapper, owner;
	void *bar;
	char c;

	p2p_close(&self->p);
	for (round = 0; round < 15; round++) {
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));

		/* The owner has B in a container of its own, and its child maps it elsewhere */
		owner = fork();
		ASSERT_LE(0, owner);
		if (!owner) {
			die_with_parent();
			close(sock[0]);
			iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
			if (p2p_open(&self->p, &want_mem))
				_exit(1);
			if (p2p_open_peer_in(&self->p, iommu))
				_exit(1);
			bar = p2p_bar(&self->p, 0, SZ_64K);
			if (!bar)
				_exit(1);
			mapper = fork();
			if (!mapper) {
				dev_close(&self->p.b);
				iommu_cleanup(iommu);
				if (dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW))
					_exit(1);
				munmap(bar, SZ_64K);
			} else {
				p2p_close_mapper(&self->p);
			}
			/* Both report, then wait for the end: theirs, or that of the test */
			pid = getpid();
			if (write(sock[1], &pid, sizeof(pid)) == sizeof(pid) &&
			    !read(sock[1], &c, 1))
				_exit(0);
			_exit(1);
		}
		close(sock[1]);
		for (i = 0, mapper = 0; i < 2; i++) {
			ASSERT_EQ(sizeof(pid), read(sock[0], &pid, sizeof(pid)));
			if (pid != owner)
				mapper = pid;
		}
		ASSERT_LT(0, mapper);
		EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));

		kill(round % 3 == 1 ? mapper : owner, SIGKILL);
		if (round % 3 == 2) {
			/* The mapper lives on, without the mapping */
			ASSERT_EQ(owner, waitpid(owner, NULL, 0));
			EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
			kill(mapper, SIGKILL);
		} else {
			nap(round);
			kill(round % 3 == 1 ? owner : mapper, SIGKILL);
			ASSERT_EQ(owner, waitpid(owner, NULL, 0));
		}
		/* End of file: the mapper is gone too */
		EXPECT_EQ(0, read(sock[0], &c, 1));
		close(sock[0]);
	}

	EXPECT_EQ(0, p2p_open(&self->p, &want_mem));
	EXPECT_EQ(0, p2p_open_peer(&self->p));
}

/* A process is killed while its threads map and unmap */
TEST_F_TIMEOUT(race, sigkill_in_the_middle_of_map_and_unmap, TIMEOUT)
{
	struct crowd c = { .slots = 32 };
	int round, ready[2];
	pid_t pid;
	char b = 0;

	c.iommu = self->p.iommu;
	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			die_with_parent();
			if (p2p_open_peer(&self->p))
				_exit(1);
			c.bar = p2p_bar(&self->p, 0, STRIDE);
			c.keep = round & 1;
			if (!c.bar || crowd_start(&c, crowd_map) || write(ready[1], &b, 1) != 1)
				_exit(1);
			pause();
		}
		close(ready[1]);
		ASSERT_EQ(1, read(ready[0], &b, 1));
		close(ready[0]);
		nap(round);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
		EXPECT_LE(0, dma_unmap(self->p.iommu, IOVA_BAR, THREADS * c.slots * STRIDE));
	}
	EXPECT_EQ(0, p2p_open_peer(&self->p));
}

/* Mappings are made while memory is disabled and enabled, and threads fault */
static void *fault_thread(void *arg)
{
	struct crowd *c = arg;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		bus_read32(c->bar, NULL);
		usleep(50);
	}

	return NULL;
}

static void stop_mapping_and_faulting(struct __test_metadata *_metadata, struct crowd *c,
				      pthread_t faulting)
{
	crowd_stop(c);
	pthread_join(faulting, NULL);
	crowd_judge(_metadata, c);
	EXPECT_LT(0, c->mapped);
}

TEST_F_TIMEOUT(race, map_racing_disable_and_faults, TIMEOUT)
{
	struct crowd c = { .slots = 32 };
	pthread_t thread;
	int round;

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	c.iommu = self->p.iommu;
	c.bar = p2p_bar(&self->p, 0, STRIDE);
	ASSERT_NE(NULL, c.bar);
	ASSERT_EQ(0, crowd_start(&c, crowd_map));
	ASSERT_EQ(0, pthread_create(&thread, NULL, fault_thread, &c));
	for (round = 0; round < 60; round++) {
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		nap(round);
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		nap(round);
	}
	stop_mapping_and_faulting(_metadata, &c, thread);
	EXPECT_LT(0, c.refused);
}

/* The same while the device is reset */
TEST_F_TIMEOUT(race, map_racing_reset_and_faults, TIMEOUT)
{
	struct crowd c = { .slots = 32 };
	pthread_t thread;
	int round, ret;

	if (pci_find(&want_mem_slot, 0, self->p.bdf_b) < 0)
		SKIP(return, NEEDS("an edu device and one with memory in a slot"));

	self->p.bar = pci_find(&want_mem_slot, 0, self->p.bdf_b);
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	if (!dev_can_reset(self->p.b))
		SKIP(return, "the device cannot be reset");

	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	c.iommu = self->p.iommu;
	c.bar = p2p_bar(&self->p, 0, STRIDE);
	ASSERT_NE(NULL, c.bar);
	ASSERT_EQ(0, crowd_start(&c, crowd_map));
	ASSERT_EQ(0, pthread_create(&thread, NULL, fault_thread, &c));
	for (round = 0; round < 4; round++) {
		EXPECT_EQ(0, __vfio_pci_device_reset(self->p.b));
		nap(round);
		ret = dev_hot_reset(self->p.b);
		EXPECT_TRUE(!ret || ret == -EBUSY);
		nap(round);
	}
	stop_mapping_and_faulting(_metadata, &c, thread);
	/* Memory was enabled all the time */
	EXPECT_EQ(0, c.refused);
}

/* A page between IOVA and memory makes all entries small, so mapping takes many pieces */
#define SHIFTED		(IOVA_BAR + SZ_4K)
#define SHIFTED_SIZE	(SZ_16M * 16)

struct mapping {
	struct iommu *iommu;
	void *bar;
	int ret;
};

static void *map_thread(void *arg)
{
	struct mapping *m = arg;

	m->ret = dma_map(m->iommu, SHIFTED, m->bar, SHIFTED_SIZE, DMA_RW);

	return NULL;
}

/* What is mapped in pieces is mapped by none of them when the memory has gone */
TEST_F_TIMEOUT(race, disable_in_the_midst_of_a_map, TIMEOUT)
{
	int round, count, mapped = 0, left = 0;
	struct mapping m = {};
	pthread_t thread;
	u64 takes;
	cpu_set_t one;

	/* On one CPU who maps loses it in the midst of that */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	p2p_close(&self->p);
	if (p2p_open(&self->p, &want_mem_1g))
		SKIP(return, NO_DEVICES);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	m.iommu = self->p.iommu;
	m.bar = p2p_bar(&self->p, 0, SHIFTED_SIZE);
	ASSERT_NE(NULL, m.bar);
	takes = now_us();
	map_thread(&m);
	takes = now_us() - takes;
	ASSERT_EQ(0, m.ret);
	ASSERT_EQ(SHIFTED_SIZE, dma_unmap(self->p.iommu, SHIFTED, SHIFTED_SIZE));

	for (round = 0; round < 8; round++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, map_thread, &m));
		usleep(takes * round / 8);
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		pthread_join(thread, NULL);
		left += iommu_count(self->p.bdf_a, SHIFTED, SHIFTED_SIZE) > 0;
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		if (m.ret) {
			EXPECT_EQ(-EFAULT, m.ret);
			continue;
		}
		mapped++;
		count = iommu_count(self->p.bdf_a, SHIFTED, SHIFTED_SIZE);
		if (count >= 0)
			EXPECT_EQ(SHIFTED_SIZE / SZ_4K, count);
		EXPECT_EQ(SHIFTED_SIZE, dma_unmap(self->p.iommu, SHIFTED, SHIFTED_SIZE));
	}
	printf("# a map takes %llu us; mapped in %d of %d rounds\n",
	       (unsigned long long)takes, mapped, round);
	EXPECT_EQ(0, left);
	EXPECT_LT(0, mapped);
}

struct toggler {
	struct vfio_pci_device *device;
	bool stop;
};

static void *toggle_thread(void *arg)
{
	struct toggler *t = arg;

	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		vfio_pci_cmd_clear(t->device, PCI_COMMAND_MEMORY);
		vfio_pci_cmd_set(t->device, PCI_COMMAND_MEMORY);
	}

	return NULL;
}

/* Memory that comes back is not mapped for one who has unmapped it */
TEST_F_TIMEOUT(race, unmap_while_memory_comes_and_goes, TIMEOUT)
{
	struct toggler t = {};
	pthread_t thread;
	int round, ret, left = 0;
	void *bar;

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, STRIDE);
	ASSERT_NE(NULL, bar);
	t.device = self->p.b;
	ASSERT_EQ(0, pthread_create(&thread, NULL, toggle_thread, &t));
	for (round = 0; round < 100; round++) {
		do {
			ret = dma_map(self->p.iommu, IOVA_BAR, bar, STRIDE, DMA_RW);
		} while (ret == -EFAULT);
		EXPECT_EQ(0, ret);
		nap(round);
		EXPECT_EQ(STRIDE, dma_unmap(self->p.iommu, IOVA_BAR, STRIDE));
		left += iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) == 1;
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, left);
}

/* Nothing that is left to do later keeps a device or its group busy */
TEST_F_TIMEOUT(race, device_is_reopened_at_once, TIMEOUT)
{
	int round, rounds = 300;
	void *bar;

	group_patience_ms = 0;
	for (round = 0; round < rounds; round++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		/* Twice a second is all that a device with a slow reset can do */
		if (!round && dev_can_reset(self->p.b))
			rounds = 20;
		bar = p2p_bar(&self->p, 0, SZ_64K);
		ASSERT_NE(NULL, bar);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
		p2p_release(&self->p, bar, SZ_64K);
		ASSERT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	}
}

/* Nor a container */
TEST_F_TIMEOUT(race, containers_are_reopened_at_once, TIMEOUT)
{
	struct iommu *iommu;
	int round, rounds = 150;
	void *bar;

	p2p_close(&self->p);
	group_patience_ms = 0;
	for (round = 0; round < rounds; round++) {
		ASSERT_EQ(0, p2p_open(&self->p, &want_mem));
		iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
		/* B alternates between A's container and one of its own */
		ASSERT_EQ(0, p2p_open_peer_in(&self->p, round & 1 ? iommu : self->p.iommu));
		if (!round && dev_can_reset(self->p.b))
			rounds = 10;
		bar = p2p_bar(&self->p, 0, SZ_64K);
		ASSERT_NE(NULL, bar);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
		munmap(bar, SZ_64K);
		if (round & 2)
			p2p_close(&self->p);
		iommu_cleanup(iommu);
		p2p_close(&self->p);
	}
}

/* Printed, not judged: time has no limit in an emulator */
TEST_F_TIMEOUT(race, release_of_thousands_of_mappings, TIMEOUT)
{
	static const unsigned int counts[] = { 500, 1000, 2000, 4000, 8000 };
	u64 start, mapped, released;
	s64 avail;
	unsigned int n;
	size_t i;
	void *bar;

	avail = dma_avail(self->p.iommu);
	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		bar = p2p_bar(&self->p, 0, SZ_1M);
		ASSERT_NE(NULL, bar);
		start = now_us();
		for (n = 0; n < counts[i]; n++)
			ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + n * 2 * SZ_4K,
					     bar + n % 256 * SZ_4K, SZ_4K, DMA_RW));
		mapped = now_us();
		p2p_release(&self->p, bar, SZ_1M);
		released = now_us();
		printf("# %5u mappings: %6.1f us to map and %6.1f us to release one\n", n,
		       (double)(mapped - start) / n, (double)(released - mapped) / n);
		EXPECT_EQ(n * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, 8000 * 2 * SZ_4K));
		EXPECT_EQ(avail, dma_avail(self->p.iommu));
	}
}

/*
 * An ioctl() that uses the container while its last group leaves it.  Device A leaves and
 * comes back, other threads map and unmap all the time.  This test and the next come last
 * because a kernel that gets one wrong does not live to see another.
 */
TEST_F_TIMEOUT(race, map_racing_the_end_of_the_container, TIMEOUT)
{
	struct iommu *iommu;
	int round, ret = 0;
	struct crowd c = { .slots = 32, .may_end = true };

	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, p2p_open_peer_in(&self->p, iommu));
	c.iommu = self->p.iommu;
	c.bar = p2p_bar(&self->p, 0, STRIDE);
	ASSERT_NE(NULL, c.bar);

	dev_close_fd(self->p.a);
	ASSERT_EQ(0, crowd_start(&c, crowd_map));
	for (round = 0; round < 60 && !ret; round++) {
		ret = group_detach(self->p.a);
		nap(round);
		if (!ret)
			ret = group_attach(self->p.a);
		nap(round);
	}
	crowd_stop(&c);
	EXPECT_EQ(0, ret);
	crowd_judge(_metadata, &c);

	p2p_release(&self->p, c.bar, STRIDE);
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, THREADS * c.slots * STRIDE));
	iommu_cleanup(iommu);
}

/* Threads that open and close the device of a group, or put it into a container and out */
struct mover {
	pthread_t thread;
	struct vfio_pci_device dev;
	bool *stop;
	unsigned long done;
};

static void *opener_thread(void *arg)
{
	struct mover *m = arg;
	int fd;

	while (!__atomic_load_n(m->stop, __ATOMIC_RELAXED)) {
		fd = dev_get_fd(&m->dev);
		m->done += fd >= 0;
		fd_close(&fd);
	}

	return NULL;
}

static void *mover_thread(void *arg)
{
	struct mover *m = arg;
	int round = 0;

	while (!__atomic_load_n(m->stop, __ATOMIC_RELAXED)) {
		m->done += !group_attach(&m->dev);
		nap(round++);
		group_detach(&m->dev);
	}

	return NULL;
}

/*
 * A device is open in a container or not at all, and a group is in one container or in none,
 * however opens and moves of the group coincide.
 */
TEST_F_TIMEOUT(race, open_racing_the_moves_of_the_group, TIMEOUT)
{
	struct vfio_pci_device *dev;
	struct mover m[3] = { };
	struct iommu *iommu[2];
	char bdf[BDF_LEN];
	bool stop = false;
	unsigned int i;

	/* Not in a slot, which would be reset at each open */
	if (pci_find(&want_mem, 1, bdf) < 0)
		SKIP(return, NO_VISITOR);

	ASSERT_EQ(0, dev_prepare(bdf));
	iommu[0] = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	iommu[1] = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	dev = dev_alloc(bdf, iommu[0]);
	dev->group_fd = group_open(bdf);
	ASSERT_LE(0, dev->group_fd);
	for (i = 0; i < 3; i++) {
		m[i].dev = *dev;
		m[i].dev.iommu = iommu[i % 2];
		m[i].stop = &stop;
		ASSERT_EQ(0, pthread_create(&m[i].thread, NULL, i ? mover_thread : opener_thread,
					    &m[i]));
	}
	sleep(8);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		pthread_join(m[i].thread, NULL);
		EXPECT_LT(0, m[i].done);
	}
	printf("# opened %lu times, moved %lu and %lu times\n", m[0].done, m[1].done, m[2].done);

	/* And then it goes on as ever */
	group_detach(dev);
	EXPECT_EQ(0, group_attach(dev));
	m[0].dev.fd = dev_get_fd(dev);
	EXPECT_LE(0, m[0].dev.fd);
	fd_close(&m[0].dev.fd);
	dev_close(&dev);
	iommu_close(&iommu[0]);
	iommu_close(&iommu[1]);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

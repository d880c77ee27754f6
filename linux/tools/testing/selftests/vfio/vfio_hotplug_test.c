// SPDX-License-Identifier: GPL-2.0
/*
 * Once user space has closed a device it can be taken from its driver, and from the
 * machine, though nobody has unmapped its memory.
 *
 * The slots that are powered off here stay empty, so this is not run by default.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_DEVICES	NEEDS("an edu device and one with memory")

FIXTURE(plug) {
	struct p2p p;
	void *bar;
};

FIXTURE_SETUP(plug)
{
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);
}

FIXTURE_TEARDOWN(plug)
{
	p2p_close(&self->p);
}

/* Something that is done to a device by way of sysfs, which may have to wait */
struct action {
	pthread_t thread;
	char path[256];
	char text[BDF_LEN];
	bool done;
	int ret;
};

static void *action_thread(void *arg)
{
	struct action *a = arg;
	int fd;

	fd = open(a->path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, a->text, strlen(a->text)) < 0)
		a->ret = -errno;
	if (fd >= 0)
		close(fd);
	__atomic_store_n(&a->done, true, __ATOMIC_SEQ_CST);

	return NULL;
}

static int action_start(struct action *a, const char *dir, const char *file, const char *text)
{
	memset(a, 0, sizeof(*a));
	snprintf(a->path, sizeof(a->path), "%s/%s", dir, file);
	snprintf(a->text, sizeof(a->text), "%s", text);
	return -pthread_create(&a->thread, NULL, action_thread, a);
}

/* Has it ended by itself, at the latest after so many milliseconds? */
static bool action_done(struct action *a, int ms)
{
	while (!__atomic_load_n(&a->done, __ATOMIC_SEQ_CST) && ms-- > 0)
		usleep(1000);

	return __atomic_load_n(&a->done, __ATOMIC_SEQ_CST);
}

static void *map_peer(struct __test_metadata *_metadata, struct p2p *p)
{
	void *bar;

	ASSERT_EQ(0, p2p_open_peer(p));
	bar = p2p_bar(p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(p->iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_NE(0, iommu_lookup(p->bdf_a, IOVA_BAR, NULL));

	return bar;
}

/* Take B out of the kernel's sight */
static void remove_peer(struct __test_metadata *_metadata, struct p2p *p)
{
	struct action a;
	char dir[128];

	snprintf(dir, sizeof(dir), "/sys/bus/pci/devices/%s", p->bdf_b);
	ASSERT_EQ(0, action_start(&a, dir, "remove", "1"));
	ASSERT_TRUE(action_done(&a, 30000));
	EXPECT_FALSE(pci_present(p->bdf_b));
}

/* And have it found again, with memory that works.  Returns a mapping of it. */
static void *rescan_peer(struct __test_metadata *_metadata, struct p2p *p)
{
	struct action a;
	void *bar;

	ASSERT_EQ(0, action_start(&a, "/sys/bus/pci", "rescan", "1"));
	ASSERT_TRUE(action_done(&a, 30000));
	ASSERT_TRUE(pci_present(p->bdf_b));
	ASSERT_EQ(0, pci_bar(p->bdf_b, p->bar, &p->phys, NULL));
	bar = map_peer(_metadata, p);
	EXPECT_EQ(1, p2p_lands(p, IOVA_BAR, 0));

	return bar;
}

/* Unbind after the device is closed, its mapping never unmapped */
TEST_F_TIMEOUT(plug, unbind_after_close, TIMEOUT)
{
	struct action a;
	char dir[128];

	self->bar = map_peer(_metadata, &self->p);
	snprintf(dir, sizeof(dir), "/sys/bus/pci/drivers/vfio-pci");
	p2p_release(&self->p, self->bar, SZ_64K);

	ASSERT_EQ(0, action_start(&a, dir, "unbind", self->p.bdf_b));
	ASSERT_TRUE(action_done(&a, 30000));
	EXPECT_EQ(0, a.ret);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));

	/* And back: everything is as it was the first time */
	self->bar = map_peer(_metadata, &self->p);
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
}

/* Unbind waits for an open device, and for nothing else */
TEST_F_TIMEOUT(plug, unbind_before_close, TIMEOUT)
{
	struct action a;

	self->bar = map_peer(_metadata, &self->p);
	ASSERT_EQ(0, action_start(&a, "/sys/bus/pci/drivers/vfio-pci", "unbind", self->p.bdf_b));
	EXPECT_FALSE(action_done(&a, 500));

	/* Until it is closed the device works */
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
	EXPECT_EQ(0, bus_read32(self->bar, NULL));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, SZ_64K, DMA_RW));

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	ASSERT_TRUE(action_done(&a, 30000));
	EXPECT_EQ(2 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 2 * SZ_1M));
}

/* The same with the device removed from the kernel's sight, and found again */
TEST_F_TIMEOUT(plug, remove_and_rescan, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p);
	munmap(self->p.window, SZ_1M);
	self->p.window = NULL;
	p2p_release(&self->p, self->bar, SZ_64K);

	remove_peer(_metadata, &self->p);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));

	self->bar = rescan_peer(_metadata, &self->p);
}

/* A group that is held open outlives its device, and is closed after it went */
TEST_F_TIMEOUT(plug, remove_while_the_group_is_open, TIMEOUT)
{
	int group;

	munmap(self->p.window, SZ_1M);
	self->p.window = NULL;
	group = group_open(self->p.bdf_b);
	ASSERT_LE(0, group);
	remove_peer(_metadata, &self->p);
	close(group);

	self->bar = rescan_peer(_metadata, &self->p);
}

/* Threads unbind and bind while the device is opened, mapped and closed */
TEST_F_TIMEOUT(plug, unbind_and_bind_racing_open_and_close, TIMEOUT)
{
	int round, opened = 0;
	struct action a;
	bool in_time;
	s64 mapped;
	void *bar;

	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, pci_bind_vfio(self->p.bdf_b));
		/* Opening is too late at times, and that is all right */
		in_time = round % 4 == 3;
		if (!in_time) {
			ASSERT_EQ(0, action_start(&a, "/sys/bus/pci/drivers/vfio-pci", "unbind",
						  self->p.bdf_b));
			usleep(round * 73 % 1000);
		}
		self->p.b = dev_alloc(self->p.bdf_b, self->p.iommu);
		self->p.b->group_fd = group_open(self->p.bdf_b);
		if (self->p.b->group_fd >= 0 && !group_attach(self->p.b))
			__vfio_pci_group_get_device_fd(self->p.b, self->p.bdf_b, NULL);
		if (in_time)
			ASSERT_EQ(0, action_start(&a, "/sys/bus/pci/drivers/vfio-pci", "unbind",
						  self->p.bdf_b));
		bar = self->p.b->fd >= 0 ? p2p_bar(&self->p, 0, SZ_64K) : NULL;
		mapped = 0;
		if (bar) {
			opened++;
			if (!dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW))
				mapped = SZ_64K;
			munmap(bar, SZ_64K);
		}
		dev_close(&self->p.b);
		ASSERT_TRUE(action_done(&a, 30000));
		pthread_join(a.thread, NULL);
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
		EXPECT_EQ(mapped, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	}
	printf("# opened %d times of %d\n", opened, round);
	EXPECT_LT(0, opened);
}

/*
 * pciehp of some kernels takes two locks of its own in either order when it empties a
 * slot.  A complaint about that would be the last one that lockdep makes, and it is
 * not what is tested here: the tests above have had its full attention.
 */
static void lockdep_proves(bool on)
{
	int fd = open("/sys/module/lockdep/parameters/prove_locking", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, on ? "1" : "0", 1) != 1)
		printf("# lockdep stays as it is\n");
	close(fd);
}

/* Find a device B in a slot */
static int find_slot(struct p2p *p, const struct pci_want *want, unsigned int nth, char *slot,
		     size_t len)
{
	char bdf[BDF_LEN];
	int bar;

	bar = pci_find(want, nth, bdf);
	if (bar < 0 || !strcmp(bdf, p->bdf_a) || pci_slot(bdf, slot, len))
		return -ENODEV;

	snprintf(p->bdf_b, sizeof(p->bdf_b), "%s", bdf);
	p->bar = bar;
	return 0;
}

/* The slot is powered off after the device is closed */
TEST_F_TIMEOUT(plug, slot_power_off_after_close, TIMEOUT)
{
	struct action a;
	char slot[128];
	void *bar;

	if (find_slot(&self->p, &want_testdev, 0, slot, sizeof(slot)))
		SKIP(return, NEEDS("a pci-testdev in a slot that can be powered off"));

	ASSERT_EQ(0, dev_open(&self->p.b, self->p.bdf_b, self->p.iommu));
	bar = p2p_bar(&self->p, 0, SZ_4K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_4K, DMA_RW));
	p2p_release(&self->p, bar, SZ_4K);

	lockdep_proves(false);
	ASSERT_EQ(0, action_start(&a, slot, "power", "0"));
	ASSERT_TRUE(action_done(&a, 60000));
	lockdep_proves(true);
	EXPECT_EQ(0, a.ret);
	EXPECT_FALSE(pci_present(self->p.bdf_b));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_4K));
}

/* And before, when it has to wait for that */
TEST_F_TIMEOUT(plug, slot_power_off_before_close, TIMEOUT)
{
	struct action a;
	char slot[128];
	void *bar;

	if (find_slot(&self->p, &want_edu_slot, 1, slot, sizeof(slot)))
		SKIP(return, NEEDS("a second edu in a slot that can be powered off"));

	ASSERT_EQ(0, dev_open(&self->p.b, self->p.bdf_b, self->p.iommu));
	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));

	lockdep_proves(false);
	ASSERT_EQ(0, action_start(&a, slot, "power", "0"));
	EXPECT_FALSE(action_done(&a, 1000));
	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));

	dev_close(&self->p.b);
	EXPECT_FALSE(action_done(&a, 100));
	munmap(bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	ASSERT_TRUE(action_done(&a, 60000));
	lockdep_proves(true);
	EXPECT_EQ(0, a.ret);
	EXPECT_FALSE(pci_present(self->p.bdf_b));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

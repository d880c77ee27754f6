// SPDX-License-Identifier: GPL-2.0
/*
 * Every memory allocation on the way to a mapping, or to a device, fails once, and each
 * time nothing is left behind.  Releasing a device needs no memory at all.
 *
 * Needs CONFIG_FAULT_INJECTION, CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		240

#define NO_DEVICES	NEEDS("an edu device and one with memory")
#define NO_INJECTION	"this kernel cannot inject faults"
#define MAX_FAULTS	2000

#define SYSLOG_ACTION_CONSOLE_LEVEL	8

FIXTURE(fault) {
	struct p2p p;
	int inject;
};

FIXTURE_SETUP(fault)
{
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	self->inject = fault_inject_open();
	if (self->inject < 0)
		SKIP(return, NO_INJECTION);
}

FIXTURE_TEARDOWN(fault)
{
	p2p_close(&self->p);
	fd_close(&self->inject);
}

/* A mapping of RAM and of device memory */
TEST_F_TIMEOUT(fault, map_unwinds_from_every_failed_allocation, TIMEOUT)
{
	int nth, ret, failed = 0, left = 0;
	s64 avail;
	bool more;
	long kb;
	void *area;

	avail = dma_avail(self->p.iommu);
	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		/* From a fresh start, so that everything has to be allocated */
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		area = mmap(NULL, 3 * SZ_64K, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(MAP_FAILED, area);
		ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar,
					    PROT_READ | PROT_WRITE, 0, SZ_64K));
		kb = proc_locked_kb();

		ASSERT_EQ(0, fault_inject(self->inject, nth));
		ret = dma_map(self->p.iommu, IOVA_BAR, area, 3 * SZ_64K, DMA_RW);
		more = fault_injected(self->inject);

		if (ret) {
			failed++;
			left += iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) == 1;
			left += iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL) == 1;
			left += dma_avail(self->p.iommu) != avail;
			left += proc_locked_kb() != kb;
			left += dma_unmap(self->p.iommu, IOVA_BAR, 3 * SZ_64K) != 0;
		} else {
			ASSERT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL));
		}

		/* And the release works, whether the mapping was made or not */
		p2p_release(&self->p, area, 3 * SZ_64K);
		left += iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL) == 1;
		left += dma_unmap(self->p.iommu, IOVA_BAR, 3 * SZ_64K) != (ret ? 0 : 3 * SZ_64K);
		left += dma_avail(self->p.iommu) != avail;
	}
	printf("# %d of %d allocations made it fail\n", failed, nth - 2);
	EXPECT_EQ(0, left);
	EXPECT_LT(0, failed);
	EXPECT_FALSE(more);
}

/*
 * Contiguous pages that need two page tables, of which there is no memory for the second.
 * IOVA and memory differ in their place within a table, so no entry is a large one.  A table
 * that is not all unmapped stays, so each round has others.
 */
TEST_F_TIMEOUT(fault, map_of_a_huge_page_unwinds, TIMEOUT)
{
	int nth, ret, failed = 0, left = 0;
	u64 iova;
	bool more;
	void *area;

	if (iommu_lookup(self->p.bdf_a, IOVA_SCRATCH, NULL) < 0)
		SKIP(return, "the page tables of the IOMMU cannot be read");

	area = mmap(NULL, 2 * SZ_2M, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	area = (void *)(((uintptr_t)area + SZ_2M - 1) & ~(SZ_2M - 1ul));
	madvise(area, SZ_2M, MADV_HUGEPAGE);
	memset(area, 1, SZ_2M);

	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		iova = IOVA_BAR + nth * (u64)SZ_4M + SZ_4K;
		ASSERT_EQ(0, fault_inject(self->inject, nth));
		ret = dma_map(self->p.iommu, iova, area, SZ_2M, DMA_RW);
		more = fault_injected(self->inject);

		if (ret) {
			failed++;
			left += iommu_lookup(self->p.bdf_a, iova, NULL) == 1;
			left += iommu_lookup(self->p.bdf_a, iova + SZ_2M - SZ_4K, NULL) == 1;
		} else {
			EXPECT_EQ(SZ_2M, dma_unmap(self->p.iommu, iova, SZ_2M));
		}
	}
	printf("# %d of %d allocations made it fail\n", failed, nth - 2);
	EXPECT_EQ(0, left);
	EXPECT_LT(0, failed);
	EXPECT_FALSE(more);
}

/*
 * No allocation that the device's release would wait for may wait for memory itself.  Such an
 * allocation may fail while there is memory, and is made up for: MAP_DMA succeeds.  Each
 * round needs page tables that are not there yet.
 */
TEST_F_TIMEOUT(fault, map_makes_up_for_what_cannot_wait, TIMEOUT)
{
	int nth, ret, failed = 0;
	u64 iova;
	bool more;
	void *bar;

	if (self->p.size < SZ_4M)
		SKIP(return, "the memory is too small");

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, SZ_4M);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, fault_inject_all(false));
	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		iova = IOVA_BAR + nth * (u64)SZ_1G + SZ_4K;
		ASSERT_EQ(0, fault_inject(self->inject, nth));
		ret = dma_map(self->p.iommu, iova, bar, SZ_4M, DMA_RW);
		more = fault_injected(self->inject);

		failed += !!ret;
		if (!ret) {
			EXPECT_NE(0, iommu_lookup(self->p.bdf_a, iova + SZ_4M - SZ_4K, NULL));
			EXPECT_EQ(SZ_4M, dma_unmap(self->p.iommu, iova, SZ_4M));
		}
	}
	fault_inject_all(true);
	printf("# %d of %d allocations made it fail\n", failed, nth - 2);
	EXPECT_LT(3, nth);
	EXPECT_EQ(0, failed);
	EXPECT_FALSE(more);
}

/* A close() that has no memory to spare removes the mappings nevertheless */
TEST_F_TIMEOUT(fault, release_works_whatever_allocation_fails, TIMEOUT)
{
	int nth, left = 0;
	s64 avail;
	bool more;
	void *bar;

	avail = dma_avail(self->p.iommu);
	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		ASSERT_EQ(0, p2p_open_peer(&self->p));
		bar = p2p_bar(&self->p, 0, SZ_64K);
		ASSERT_NE(NULL, bar);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
		munmap(bar, SZ_64K);

		ASSERT_EQ(0, fault_inject(self->inject, nth));
		close(self->p.b->fd);
		more = fault_injected(self->inject);
		self->p.b->fd = -1;

		left += iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) == 1;
		left += dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K) != SZ_64K;
		left += dma_avail(self->p.iommu) != avail;
		dev_close(&self->p.b);
	}
	printf("# %d allocations\n", nth - 2);
	EXPECT_EQ(0, left);
	EXPECT_FALSE(more);
}

/*
 * Memory that comes back when there is none to map it stays suspended, and is mapped when
 * the user maps or unmaps anything, or when it is enabled the next time.  What is mapped has
 * page tables that go and come with it.
 */
TEST_F_TIMEOUT(fault, resume_that_fails_is_made_good, TIMEOUT)
{
	const u64 iova = IOVA_BAR + SZ_4K, size = 2 * SZ_4M - SZ_4K;
	const u64 other = IOVA_BAR + SZ_1G;
	int nth, failed = 0, ret;
	bool more;
	void *bar;

	if (self->p.size < 2 * SZ_4M)
		SKIP(return, "the memory is too small");
	if (iommu_lookup(self->p.bdf_a, IOVA_SCRATCH, NULL) < 0)
		SKIP(return, "the page tables of the IOMMU cannot be read");

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, size);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, iova, bar, size, DMA_RW));

	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		ASSERT_EQ(0, iommu_lookup(self->p.bdf_a, iova + SZ_4M, NULL));

		ASSERT_EQ(0, fault_inject(self->inject, nth));
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		more = fault_injected(self->inject);

		ret = iommu_lookup(self->p.bdf_a, iova + size - SZ_4K, NULL);
		if (ret != 1) {
			failed++;
			switch (nth % 3) {
			case 0:
				ASSERT_EQ(0, dma_map(self->p.iommu, other, self->p.scratch,
						     SZ_4K, DMA_RW));
				break;
			case 1:
				dma_unmap(self->p.iommu, other, SZ_4K);
				break;
			default:
				vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
			}
		}
		EXPECT_EQ(1, iommu_lookup(self->p.bdf_a, iova + SZ_4M, NULL));
		EXPECT_EQ(1, iommu_lookup(self->p.bdf_a, iova + size - SZ_4K, NULL));
		EXPECT_EQ(1, p2p_lands(&self->p, iova, 0));
		dma_unmap(self->p.iommu, other, SZ_4K);
	}
	printf("# %d of %d allocations made it fail\n", failed, nth - 2);
	EXPECT_LT(0, failed);
	EXPECT_FALSE(more);
	EXPECT_EQ(size, dma_unmap(self->p.iommu, iova, size));
}

/* A device that cannot be had for want of memory can be had afterwards */
TEST_F_TIMEOUT(fault, open_unwinds_from_every_failed_allocation, TIMEOUT)
{
	int nth, failed = 0;
	bool more;
	void *bar;

	ASSERT_EQ(0, dev_prepare(self->p.bdf_b));
	for (nth = 1, more = true; more && nth < MAX_FAULTS; nth++) {
		self->p.b = dev_alloc(self->p.bdf_b, self->p.iommu);
		vfio_pci_group_setup(self->p.b, self->p.bdf_b);
		vfio_container_set_iommu(self->p.b);

		ASSERT_EQ(0, fault_inject(self->inject, nth));
		__vfio_pci_group_get_device_fd(self->p.b, self->p.bdf_b, NULL);
		more = fault_injected(self->inject);

		if (self->p.b->fd < 0) {
			failed++;
			__vfio_pci_group_get_device_fd(self->p.b, self->p.bdf_b, NULL);
		}
		ASSERT_LE(0, self->p.b->fd);
		dev_close(&self->p.b);
	}
	printf("# %d of %d allocations made it fail\n", failed, nth - 2);
	EXPECT_LT(0, failed);
	EXPECT_FALSE(more);

	/* Opens and releases have stayed in step, so this is the last release */
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	p2p_release(&self->p, bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

/* What the kernel said of binds, and of anything else, since @log was opened */
struct said {
	int failed_probes;
	int complaints;
};

static void read_log(int log, struct said *said)
{
	char line[8192];

	while (kmsg_read(log, line, sizeof(line))) {
		if (strstr(line, "failed with error -12")) {
			said->failed_probes++;
		} else if (strstr(line, "WARNING:") || strstr(line, "INFO: ") ||
			   strstr(line, "BUG:") || strstr(line, "Busy inodes")) {
			printf("# %s", line);
			said->complaints++;
		}
	}
}

/* Of the core of vfio, if it is a module: a mount that is left behind is one */
static long module_users(void)
{
	char buf[32] = "";
	int fd;

	fd = open("/sys/module/vfio/refcnt", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = '\0';
	fd_close(&fd);

	return atol(buf);
}

/* Is all as it was before?  The last put of a group may come a little later */
static bool nothing_left(const char *group, long users)
{
	int tries = 100;

	while (tries-- && (!access(group, F_OK) || module_users() != users))
		usleep(10000);

	return tries >= 0;
}

/*
 * The probe of a device that is near some memory runs in a thread of the kernel's, where
 * nothing is injected.
 */
static void probe_in_this_thread(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", bdf);
	write_text(path, "-1");
}

/* Binding the driver, which makes what belongs to the device */
TEST_F_TIMEOUT(fault, bind_unwinds_from_every_failed_allocation, TIMEOUT)
{
	int nth, log, rounds = 3, failed = 0, left = 0;
	struct said said = {};
	bool fresh;
	char group[64];
	long users;
	void *bar;

	/* Without any other device, so that what they share is made and removed too */
	ASSERT_EQ(0, pci_bind_vfio(self->p.bdf_b));
	p2p_close(&self->p);
	ASSERT_EQ(0, pci_unbind(self->p.bdf_a));
	ASSERT_EQ(0, pci_unbind(self->p.bdf_b));
	probe_in_this_thread(self->p.bdf_b);
	snprintf(group, sizeof(group), "/dev/vfio/%d", sysfs_iommu_group_get(self->p.bdf_b));
	users = module_users();
	log = kmsg_open();
	klogctl(SYSLOG_ACTION_CONSOLE_LEVEL, NULL, 4);
	for (nth = 1, fresh = true; rounds && nth < MAX_FAULTS; nth++) {
		ASSERT_EQ(0, fault_inject(self->inject, nth));
		write_text("/sys/bus/pci/drivers/vfio-pci/bind", self->p.bdf_b);
		/* What is cached takes an allocation less, so one may have been passed over */
		if (!fault_injected(self->inject)) {
			rounds--;
			nth = 0;
		}

		/* Bound or not, it can be now */
		if (!pci_bound_to_vfio(self->p.bdf_b)) {
			failed++;
			left += fresh && !nothing_left(group, users);
		}
		ASSERT_EQ(0, pci_bind_vfio(self->p.bdf_b));
		ASSERT_EQ(0, pci_unbind(self->p.bdf_b));

		/* A group that is still there would be found, and not made */
		fresh = fresh && nothing_left(group, users);
	}
	klogctl(SYSLOG_ACTION_CONSOLE_LEVEL, NULL, 7);
	read_log(log, &said);
	fd_close(&log);
	printf("# it failed %d times, %d of them in the probe\n", failed, said.failed_probes);
	EXPECT_EQ(0, said.complaints);
	EXPECT_EQ(0, rounds);
	EXPECT_LT(0, said.failed_probes);
	EXPECT_EQ(0, left);
	EXPECT_TRUE(fresh);

	ASSERT_EQ(0, p2p_open(&self->p, &want_mem));
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory is mapped for a peer's DMA only as long as its device is open.
 *
 * Every test has edu device A write to an IOVA behind which a BAR of device B was
 * mapped, and looks at the IOMMU's page tables, before and after B is released in
 * one way or another.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_DEVICES	NEEDS("an edu device and one with memory")
#define NO_PEERS	NEEDS("an edu device and two with memory")
#define NO_CONTAINERS	NEEDS("two edu devices and one with memory")

FIXTURE(release) {
	struct p2p p;
	void *bar;
};

FIXTURE_SETUP(release)
{
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);
}

FIXTURE_TEARDOWN(release)
{
	p2p_close(&self->p);
}

/* Open B and map the first @size bytes of its BAR at IOVA_BAR */
static void *map_peer(struct __test_metadata *_metadata, struct p2p *p, size_t size)
{
	void *bar;

	ASSERT_EQ(0, p2p_open_peer(p));
	bar = p2p_bar(p, 0, size);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(p->iommu, IOVA_BAR, bar, size, DMA_RW));

	return bar;
}

static void expect_mapped(struct __test_metadata *_metadata, struct p2p *p, u64 iova,
			  size_t offset)
{
	EXPECT_TRUE(iommu_maps(p->bdf_a, iova, p->phys + offset));
	EXPECT_EQ(1, p2p_lands(p, iova, offset));
}

static void expect_no_dma(struct __test_metadata *_metadata, struct p2p *p, u64 iova,
			  size_t size, size_t offset)
{
	/* The page tables first: DMA takes its time, which might hide a late removal */
	EXPECT_NE(1, iommu_lookup(p->bdf_a, iova, NULL));
	EXPECT_NE(1, iommu_lookup(p->bdf_a, iova + size - SZ_4K, NULL));
	EXPECT_EQ(0, p2p_lands(p, iova, offset));
}

/* The memory is gone from the IOMMU.  The mapping is there until the user unmaps it */
static void expect_gone(struct __test_metadata *_metadata, struct p2p *p, u64 iova,
			size_t size, size_t offset)
{
	expect_no_dma(_metadata, p, iova, size, offset);
	EXPECT_EQ(size, dma_unmap(p->iommu, iova, size));
	EXPECT_EQ(0, dma_unmap(p->iommu, iova, size));
}

/* The last reference to go is the CPU's mapping of the BAR */
TEST_F_TIMEOUT(release, close_then_munmap_removes_the_mapping, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p, SZ_1M);
	expect_mapped(_metadata, &self->p, IOVA_BAR + SZ_64K, SZ_64K);

	dev_close(&self->p.b);
	/* Still open by way of the mapping */
	expect_mapped(_metadata, &self->p, IOVA_BAR + SZ_64K, SZ_64K);

	munmap(self->bar, SZ_1M);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_1M, 0);
}

/* The last reference to go is the file descriptor */
TEST_F_TIMEOUT(release, munmap_then_close_removes_the_mapping, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p, SZ_1M);

	munmap(self->bar, SZ_1M);
	/* Without the CPU's mapping the device is as open as before */
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	dev_close(&self->p.b);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_1M, 0);
}

/* Only the last of several opens and duplicates counts */
TEST_F_TIMEOUT(release, mapping_stays_until_the_last_open_is_closed, TIMEOUT)
{
	int second, dup_fd;

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	second = dev_get_fd(self->p.b);
	ASSERT_LE(0, second);
	dup_fd = dup(second);
	ASSERT_LE(0, dup_fd);

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	close(second);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	close(dup_fd);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

struct nic {
	struct p2p p;
	bool closed;
};

FIXTURE(nic) {
	struct nic nic;
};

FIXTURE_SETUP(nic)
{
	int ret = p2p_open(&self->nic.p, &want_e1000e);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NEEDS("an edu device and an e1000e"));
}

FIXTURE_TEARDOWN(nic)
{
	p2p_close(&self->nic.p);
}

static void *close_thread(void *arg)
{
	struct nic *nic = arg;

	dev_close(&nic->p.b);
	__atomic_store_n(&nic->closed, true, __ATOMIC_RELEASE);
	return NULL;
}

/* A close resets the function, which takes 100 ms and is announced to nobody */
TEST_F_TIMEOUT(nic, removed_before_the_reset, TIMEOUT)
{
	struct p2p *p = &self->nic.p;
	int ret, mapped = 0, gone = 0;
	pthread_t thread;
	void *bar;

	/* Not p2p_open_peer(), whose window is larger than this BAR */
	ASSERT_EQ(0, dev_open(&p->b, p->bdf_b, p->iommu));
	vfio_pci_cmd_set(p->b, PCI_COMMAND_MEMORY);
	bar = p2p_bar(p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(p->iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	if (iommu_lookup(p->bdf_a, IOVA_BAR, NULL) < 0)
		SKIP(return, "the page tables of the IOMMU cannot be read");
	munmap(bar, SZ_64K);

	ASSERT_EQ(0, pthread_create(&thread, NULL, close_thread, &self->nic));
	do {
		ret = iommu_lookup(p->bdf_a, IOVA_BAR, NULL);
		mapped += ret == 1;
		gone += ret == 0;
		usleep(1000);
	} while (!__atomic_load_n(&self->nic.closed, __ATOMIC_ACQUIRE));
	pthread_join(thread, NULL);

	printf("# mapped %d times, gone %d times\n", mapped, gone);
	EXPECT_LT(mapped, gone);
}

/* A part of the CPU's mapping keeps the device open, and all of the DMA mapping */
TEST_F_TIMEOUT(release, partial_munmap_keeps_the_mapping, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p, SZ_1M);
	dev_close(&self->p.b);

	munmap(self->bar, SZ_64K);
	munmap(self->bar + 2 * SZ_64K, SZ_1M - 2 * SZ_64K);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	munmap(self->bar + SZ_64K, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_1M, 0);
}

/* A CPU mapping that was moved after the DMA mapping was made */
TEST_F_TIMEOUT(release, mremap_keeps_the_mapping, TIMEOUT)
{
	void *moved;

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	dev_close(&self->p.b);

	moved = mmap(NULL, SZ_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, moved);
	moved = mremap(self->bar, SZ_64K, SZ_64K, MREMAP_MAYMOVE | MREMAP_FIXED, moved);
	ASSERT_NE(MAP_FAILED, moved);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	munmap(moved, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* The IOVA is taken until it is unmapped, and works for something else then */
TEST_F_TIMEOUT(release, iova_can_be_mapped_again, TIMEOUT)
{
	u32 *ram = ram_alloc(SZ_64K);
	u64 phys;
	int ret;

	ASSERT_NE(NULL, ram);
	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	p2p_release(&self->p, self->bar, SZ_64K);

	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, ram, SZ_64K, DMA_RW));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, ram, SZ_64K, DMA_RW));
	ret = iommu_lookup(self->p.bdf_a, IOVA_BAR, &phys);
	EXPECT_NE(0, ret);
	EXPECT_TRUE(ret != 1 || phys != self->p.phys);
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR, 0x12345678));
	EXPECT_EQ(0x12345678, *ram);
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

/* A mapping counts against the container's limit until the user unmaps it */
TEST_F_TIMEOUT(release, entry_limit_is_given_back, TIMEOUT)
{
	s64 before;
	size_t i;

	before = dma_avail(self->p.iommu);
	if (before < 0)
		SKIP(return, "the kernel does not tell how many mappings are left");

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	for (i = 1; i < 10; i++)
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * SZ_64K, self->bar, SZ_64K,
				     DMA_RW));
	EXPECT_EQ(before - 10, dma_avail(self->p.iommu));

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_EQ(before - 10, dma_avail(self->p.iommu));
	EXPECT_EQ(10 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 10 * SZ_64K));
	EXPECT_EQ(before, dma_avail(self->p.iommu));
}

/* RAM beside device memory stays pinned and mapped */
TEST_F_TIMEOUT(release, ram_beside_a_bar_stays, TIMEOUT)
{
	long before, base = proc_locked_kb();
	void *area, *bar;

	ASSERT_EQ(0, p2p_open_peer(&self->p));

	area = mmap(NULL, 3 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	bar = bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar, PROT_READ | PROT_WRITE, 0,
			  SZ_64K);
	ASSERT_EQ(area + SZ_64K, bar);
	before = proc_locked_kb();
	EXPECT_EQ(base, before);

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, 3 * SZ_64K, DMA_RW));
	EXPECT_EQ(before + 128, proc_locked_kb());
	expect_mapped(_metadata, &self->p, IOVA_BAR + SZ_64K, 0);
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + 2 * SZ_64K, 0x600d));
	EXPECT_EQ(0x600d, *(u32 *)(area + 2 * SZ_64K));

	p2p_release(&self->p, bar, SZ_64K);

	EXPECT_EQ(before + 128, proc_locked_kb());
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR, 0x600d));
	EXPECT_EQ(0x600d, *(u32 *)area);
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + 2 * SZ_64K, 0x900d));
	EXPECT_EQ(0x900d, *(u32 *)(area + 2 * SZ_64K));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL));
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR + SZ_64K, 0));

	EXPECT_EQ(3 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 3 * SZ_64K));
	EXPECT_EQ(before, proc_locked_kb());
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + 2 * SZ_64K, NULL));
}

/* RAM and device memory, page by page in turn */
TEST_F_TIMEOUT(release, many_ranges_in_one_mapping_go_together, TIMEOUT)
{
	const int pages = 16;
	s64 avail;
	long before;
	void *area;
	int i;

	avail = dma_avail(self->p.iommu);
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	area = mmap(NULL, pages * SZ_4K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	for (i = 1; i < pages; i += 2)
		ASSERT_NE(NULL, bar_mmap_at(area + i * SZ_4K, self->p.b->fd, self->p.bar,
					    PROT_READ | PROT_WRITE, i * SZ_4K, SZ_4K));
	before = proc_locked_kb();

	/* Twice: unmapped by the user, and by the release */
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, pages * SZ_4K, DMA_RW));
	EXPECT_EQ(before + pages * 2, proc_locked_kb());
	EXPECT_EQ(pages * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, pages * SZ_4K));
	EXPECT_EQ(before, proc_locked_kb());

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, pages * SZ_4K, DMA_RW));
	for (i = 1; i < pages; i += 2)
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + i * SZ_4K,
				       self->p.phys + i * SZ_4K));
	expect_mapped(_metadata, &self->p, IOVA_BAR + 3 * SZ_4K, 3 * SZ_4K);
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + 2 * SZ_4K, 0x600d));
	EXPECT_EQ(0x600d, *(u32 *)(area + 2 * SZ_4K));

	for (i = 1; i < pages; i += 2)
		munmap(area + i * SZ_4K, SZ_4K);
	dev_close(&self->p.b);
	for (i = 1; i < pages; i += 2)
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + i * SZ_4K, NULL));
	EXPECT_EQ(before + pages * 2, proc_locked_kb());
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + 2 * SZ_4K, 0x900d));
	EXPECT_EQ(0x900d, *(u32 *)(area + 2 * SZ_4K));

	EXPECT_EQ(pages * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, pages * SZ_4K));
	EXPECT_EQ(before, proc_locked_kb());
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
	for (i = 0; i < pages; i++)
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + i * SZ_4K, NULL));
}

/* While the container keeps a record of the pages that DMA may have written */
TEST_F_TIMEOUT(release, release_while_dirty_pages_are_tracked, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	if (dma_track_dirty(self->p.iommu, true))
		SKIP(return, "the container cannot track dirty pages");

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, SZ_64K, DMA_RW));
	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_1M, NULL));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR + SZ_1M, SZ_64K));
	EXPECT_EQ(0, dma_track_dirty(self->p.iommu, false));
}

/* One request unmaps all there is, and leaves the release nothing to do */
TEST_F_TIMEOUT(release, unmap_of_everything_takes_device_memory_too, TIMEOUT)
{
	struct dma_region region = { .iova = IOVA_BAR, .size = SZ_64K };
	s64 avail;
	u64 unmapped;

	if (!dma_has(self->p.iommu, VFIO_UNMAP_ALL))
		SKIP(return, "the container cannot unmap everything at once");

	avail = dma_avail(self->p.iommu);
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	self->bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, self->bar);
	region.vaddr = self->bar;
	iommu_map(self->p.iommu, &region);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, SZ_4K, DMA_RO));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	EXPECT_EQ(0, __iommu_unmap_all(self->p.iommu, &unmapped));
	EXPECT_EQ(SZ_64K + SZ_4K + self->p.memory.size, unmapped);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_1M, NULL));
	/* Device A's own memory is mapped again, for it to do DMA at all */
	iommu_map(self->p.iommu, &self->p.memory);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));

	/* The device is still open, and looked after */
	iommu_map(self->p.iommu, &region);
	p2p_release(&self->p, self->bar, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
}

/*
 * A process that replaces itself has its mappings stay while it has no address for them, and
 * gives them one again afterwards.
 */
TEST_F_TIMEOUT(release, release_after_the_mapping_got_another_address, TIMEOUT)
{
	void *other;

	if (!dma_has(self->p.iommu, VFIO_UPDATE_VADDR))
		SKIP(return, "the container cannot give a mapping another address");

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	EXPECT_EQ(SZ_64K, dma_unmap_flags(self->p.iommu, IOVA_BAR, SZ_64K,
					  VFIO_DMA_UNMAP_FLAG_VADDR));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	other = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, other);
	munmap(self->bar, SZ_64K);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, other, SZ_64K, VFIO_DMA_MAP_FLAG_VADDR));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	dev_close(&self->p.b);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	munmap(other, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* And while it has none */
TEST_F_TIMEOUT(release, release_while_the_mapping_has_no_address, TIMEOUT)
{
	if (!dma_has(self->p.iommu, VFIO_UPDATE_VADDR))
		SKIP(return, "the container cannot give a mapping another address");

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	EXPECT_EQ(SZ_64K, dma_unmap_flags(self->p.iommu, IOVA_BAR, SZ_64K,
					  VFIO_DMA_UNMAP_FLAG_VADDR));
	munmap(self->bar, SZ_64K);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	dev_close(&self->p.b);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
	/* Nothing is owed: what is mapped now is mapped as ever */
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
}

/* The first version of the interface differs in what may be unmapped only */
TEST_F_TIMEOUT(release, release_with_the_first_version_of_the_interface, TIMEOUT)
{
	p2p_close(&self->p);
	ASSERT_EQ(0, p2p_open_mode(&self->p, &want_mem, MODE_VFIO_TYPE1_IOMMU));
	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	p2p_release(&self->p, self->bar, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
}

/* What does not hold a page of the device is left alone */
TEST_F_TIMEOUT(release, other_mappings_stay, TIMEOUT)
{
	struct vfio_pci_device *other;
	char bdf[BDF_LEN];
	void *other_bar;
	u32 *ram;
	u64 phys;
	int index;

	index = pci_find(&want_mem, 1, bdf);
	if (index < 0)
		SKIP(return, NO_PEERS);

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	ASSERT_EQ(0, dev_open(&other, bdf, self->p.iommu));
	other_bar = bar_mmap(other->fd, index, PROT_READ | PROT_WRITE, 0, SZ_64K);
	ASSERT_NE(NULL, other_bar);
	ram = ram_alloc(SZ_64K);
	ASSERT_NE(NULL, ram);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_64K, other_bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + 2 * SZ_64K, ram, SZ_64K, DMA_RW));

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);

	ASSERT_EQ(0, pci_bar(bdf, index, &phys, NULL));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + SZ_64K, phys));
	mmio_write32(other_bar, 0);
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + SZ_64K, 0x1234));
	EXPECT_EQ(0x1234, mmio_read32(other_bar));
	EXPECT_EQ(0, p2p_store(&self->p, IOVA_BAR + 2 * SZ_64K, 0x5678));
	EXPECT_EQ(0x5678, *ram);
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR + SZ_64K, SZ_64K));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR + 2 * SZ_64K, SZ_64K));

	munmap(other_bar, SZ_64K);
	dev_close(&other);
}

/* A device may be in any number of mappings */
TEST_F_TIMEOUT(release, every_mapping_of_the_device_goes, TIMEOUT)
{
	int left = 0;
	size_t i;

	self->bar = map_peer(_metadata, &self->p, SZ_1M);
	for (i = 1; i < 32; i++)
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * SZ_1M,
				     self->bar + i * SZ_4K, SZ_64K, i & 1 ? DMA_RW : DMA_WO));

	p2p_release(&self->p, self->bar, SZ_1M);

	for (i = 0; i < 32; i++) {
		left += iommu_lookup(self->p.bdf_a, IOVA_BAR + i * SZ_1M, NULL) == 1;
		left += dma_unmap(self->p.iommu, IOVA_BAR + i * SZ_1M, SZ_1M) !=
			(i ? SZ_64K : SZ_1M);
	}
	EXPECT_EQ(0, left);
}

/* A released device can be opened and mapped again, with the same result */
TEST_F_TIMEOUT(release, reopened_device_is_tracked_again, TIMEOUT)
{
	int i;

	for (i = 0; i < 3; i++) {
		self->bar = map_peer(_metadata, &self->p, SZ_64K);
		expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
		p2p_release(&self->p, self->bar, SZ_64K);
		expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
	}
}

/* What the kernel keeps of a device that is not mapped any more, it lets go in time */
TEST_F_TIMEOUT(release, mapping_after_a_long_pause_is_tracked, TIMEOUT)
{
	int i;

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
		usleep(500000 + i * 1000000);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	}
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* Unmapping by the user comes first, there is nothing left to remove */
TEST_F_TIMEOUT(release, unmap_before_release_works_as_ever, TIMEOUT)
{
	s64 before;

	before = dma_avail(self->p.iommu);
	self->bar = map_peer(_metadata, &self->p, SZ_1M);
	EXPECT_EQ(SZ_1M, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));

	/* And again at the same place */
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_1M, DMA_RW));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	EXPECT_EQ(SZ_1M, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));

	p2p_release(&self->p, self->bar, SZ_1M);
	EXPECT_EQ(before, dma_avail(self->p.iommu));
}

/* The group of a mapped device stays in its container until the device is closed */
TEST_F_TIMEOUT(release, group_cannot_leave_its_container_while_mapped, TIMEOUT)
{
	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	EXPECT_EQ(-EBUSY, group_detach(self->p.b));

	dev_close_fd(self->p.b);
	EXPECT_EQ(-EBUSY, group_detach(self->p.b));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	munmap(self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(0, group_detach(self->p.b));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/*
 * Other processes.  A child opens B and maps its BAR in the parent's container, in
 * which device A is; the parent sees what becomes of the mapping.
 */
struct holder {
	pid_t pid;
	int ready;
	int quit;
};

static int hold_peer(struct p2p *p, struct holder *h)
{
	int ready[2], quit[2];
	char c = 0;

	/* Make the view of B's memory first: it is the parent that looks */
	p->window = pci_sysfs_map(p->bdf_b, p->bar, SZ_1M);
	if (!p->window)
		return -ENOMEM;
	if (pipe(ready) || pipe(quit))
		return -errno;

	h->pid = fork();
	if (h->pid < 0)
		return -errno;

	if (!h->pid) {
		void *bar;

		die_with_parent();
		close(ready[0]);
		close(quit[1]);
		if (p2p_open_peer(p))
			_exit(1);
		bar = p2p_bar(p, 0, SZ_64K);
		if (!bar || dma_map(p->iommu, IOVA_BAR, bar, SZ_64K, DMA_RW))
			_exit(2);
		if (bus_read32(bar, NULL) || write(ready[1], &c, 1) != 1)
			_exit(3);
		if (read(quit[0], &c, 1))
			_exit(4);
		_exit(0);
	}

	close(ready[1]);
	close(quit[0]);
	h->ready = ready[0];
	h->quit = quit[1];

	return read(h->ready, &c, 1) == 1 ? 0 : -ECHILD;
}

/* The process that has the device exits, somebody else has the container */
TEST_F_TIMEOUT(release, exit_removes_the_mapping, TIMEOUT)
{
	struct holder h;
	int status;

	ASSERT_EQ(0, hold_peer(&self->p, &h));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	close(h.quit);
	ASSERT_EQ(h.pid, waitpid(h.pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* Nobody has to cooperate */
TEST_F_TIMEOUT(release, sigkill_removes_the_mapping, TIMEOUT)
{
	struct holder h;
	int status;

	ASSERT_EQ(0, hold_peer(&self->p, &h));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	kill(h.pid, SIGKILL);
	ASSERT_EQ(h.pid, waitpid(h.pid, &status, 0));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* The mapper is gone, its mapping and the device it does not have are not */
TEST_F_TIMEOUT(release, exit_of_the_mapper_alone_keeps_the_mapping, TIMEOUT)
{
	int status;
	pid_t pid;

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	self->bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, self->bar);

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(!!dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* A forked child's copy of the CPU's mapping keeps the device open */
TEST_F_TIMEOUT(release, forked_child_holds_the_device_open, TIMEOUT)
{
	int quit[2], status;
	pid_t pid;
	char c;

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	ASSERT_EQ(0, pipe(quit));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		die_with_parent();
		close(quit[1]);
		dev_close(&self->p.b);
		_exit(read(quit[0], &c, 1) ? 1 : 0);
	}
	close(quit[0]);

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	close(quit[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

static int send_fd(int sock, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	char c = 0;
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = u.buf,
		.msg_controllen = sizeof(u.buf),
	};
	struct cmsghdr *cmsg;

	memset(&u, 0, sizeof(u));
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));

	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

/* The last reference is a file descriptor in flight, and is never received */
TEST_F_TIMEOUT(release, fd_in_flight_holds_the_device_open, TIMEOUT)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		SKIP(return, "no unix sockets");

	self->bar = map_peer(_metadata, &self->p, SZ_64K);
	ASSERT_EQ(0, send_fd(sv[0], self->p.b->fd));
	p2p_release(&self->p, self->bar, SZ_64K);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	close(sv[0]);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	close(sv[1]);
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* Two devices in one mapping, the closing of either of which leaves the other */
FIXTURE(two_devices) {
	struct p2p p;
	struct vfio_pci_device *c;
	char bdf_c[BDF_LEN];
	void *area;
};

FIXTURE_VARIANT(two_devices) {
	bool first;
};

FIXTURE_VARIANT_ADD(two_devices, first) { .first = true };
FIXTURE_VARIANT_ADD(two_devices, second) { .first = false };

FIXTURE_SETUP(two_devices)
{
	int index;

	index = pci_find(&want_mem, 1, self->bdf_c);
	if (index < 0 || p2p_open(&self->p, &want_mem))
		SKIP(return, NO_PEERS);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	ASSERT_EQ(0, dev_open(&self->c, self->bdf_c, self->p.iommu));
	self->area = mmap(NULL, 2 * SZ_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->area);
	ASSERT_NE(NULL, bar_mmap_at(self->area, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	ASSERT_NE(NULL, bar_mmap_at(self->area + SZ_64K, self->c->fd, index,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->area, 2 * SZ_64K, DMA_RW));
}

FIXTURE_TEARDOWN(two_devices)
{
	dev_close(&self->c);
	p2p_close(&self->p);
}

/* Every device in a mapping counts */
TEST_F_TIMEOUT(two_devices, either_release_leaves_the_other, TIMEOUT)
{
	struct vfio_pci_device **dev = variant->first ? &self->p.b : &self->c;
	void *bar = variant->first ? self->area : self->area + SZ_64K;
	void *rest = variant->first ? self->area + SZ_64K : self->area;
	u64 gone = variant->first ? IOVA_BAR : IOVA_BAR + SZ_64K;
	u64 left = variant->first ? IOVA_BAR + SZ_64K : IOVA_BAR;

	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));

	munmap(bar, SZ_64K);
	dev_close(dev);

	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, gone, NULL));
	EXPECT_NE(0, iommu_lookup(self->p.bdf_a, left, NULL));
	EXPECT_EQ(!variant->first, p2p_lands(&self->p, IOVA_BAR, 0));
	EXPECT_EQ(2 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 2 * SZ_64K));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, left, NULL));

	/* The other device still works, and is still looked after */
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, rest, SZ_64K, DMA_RW));
	munmap(rest, SZ_64K);
	dev_close(variant->first ? &self->c : &self->p.b);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

/*
 * Device B is in a container of its own, together with another edu, D.  Its memory is mapped
 * there and in the container of device A.
 */
FIXTURE(two_containers) {
	struct p2p p;
	struct vfio_pci_device *d;
	char bdf_d[BDF_LEN];
	struct iommu *iommu;
	void *bar;
};

FIXTURE_SETUP(two_containers)
{
	if (pci_find(&want_edu, 1, self->bdf_d) < 0 || p2p_open(&self->p, &want_mem))
		SKIP(return, NO_CONTAINERS);

	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&self->d, self->bdf_d, self->iommu));
	ASSERT_EQ(0, p2p_open_peer_in(&self->p, self->iommu));
	self->bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
}

FIXTURE_TEARDOWN(two_containers)
{
	dev_close(&self->d);
	iommu_close(&self->iommu);
	p2p_close(&self->p);
}

/* The mapping of a device is found in every container */
TEST_F_TIMEOUT(two_containers, release_reaches_every_container, TIMEOUT)
{
	EXPECT_NE(0, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	p2p_release(&self->p, self->bar, SZ_64K);

	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* The mapper's container goes first, the device after it */
TEST_F_TIMEOUT(two_containers, mappers_container_closed_before_the_device, TIMEOUT)
{
	p2p_close_mapper(&self->p);
	EXPECT_NE(0, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_EQ(SZ_64K, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
}

/* The device goes first, then its container, then the mapper's */
TEST_F_TIMEOUT(two_containers, devices_container_closed_before_the_mappers, TIMEOUT)
{
	p2p_release(&self->p, self->bar, SZ_64K);
	dev_close(&self->d);
	iommu_close(&self->iommu);

	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* All groups leave the mapper's container, which stays open */
TEST_F_TIMEOUT(two_containers, mappers_group_leaves_before_the_device, TIMEOUT)
{
	dev_close_fd(self->p.a);
	ASSERT_EQ(0, group_detach(self->p.a));

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));

	/* Back again with nothing of the past in it */
	ASSERT_EQ(0, group_attach(self->p.a));
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	self->p.a->fd = dev_get_fd(self->p.a);
	ASSERT_LE(0, self->p.a->fd);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
}

/* A device's memory may be mapped in a container it has left for good */
TEST_F_TIMEOUT(two_containers, device_moves_to_the_other_container, TIMEOUT)
{
	p2p_release(&self->p, self->bar, SZ_64K);
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	self->bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, self->bar);
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	EXPECT_EQ(SZ_64K, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	EXPECT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/* A group that joins the container later has the mapping, until the release */
TEST_F_TIMEOUT(two_containers, release_reaches_a_group_that_joined_later, TIMEOUT)
{
	dev_close(&self->d);
	ASSERT_EQ(0, dev_open(&self->d, self->bdf_d, self->p.iommu));
	EXPECT_TRUE(iommu_maps(self->bdf_d, IOVA_BAR, self->p.phys));
	EXPECT_TRUE(iommu_maps(self->bdf_d, IOVA_BAR + SZ_64K - SZ_4K,
			       self->p.phys + SZ_64K - SZ_4K));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	expect_gone(_metadata, &self->p, IOVA_BAR, SZ_64K, 0);
}

/*
 * Device B is opened in one of the ways that there are, and its memory is mapped in the
 * container of device A.
 */
FIXTURE(opened) {
	struct p2p p;
	struct iommu *iommu;
	struct vfio_pci_device *b;
	struct dma_region region;
};

FIXTURE_VARIANT(opened) {
	const char *mode;
};

/* The fd of a group, in a container or in what iommufd offers for one; and that of a cdev */
FIXTURE_VARIANT_ADD(opened, group) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(opened, group_iommufd) { .mode = MODE_IOMMUFD_COMPAT_TYPE1V2 };
FIXTURE_VARIANT_ADD(opened, cdev) { .mode = MODE_IOMMUFD };

FIXTURE_SETUP(opened)
{
	const char *missing;
	int ret;

	ret = p2p_open(&self->p, &want_mem);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	ASSERT_EQ(0, dev_prepare(self->p.bdf_b));
	missing = mode_is_missing(variant->mode, self->p.bdf_b);
	if (missing)
		SKIP(return, "%s", missing);

	self->iommu = iommu_init(variant->mode);
	self->b = vfio_pci_device_init(self->p.bdf_b, self->iommu);
	ASSERT_NE(NULL, self->b->bars[self->p.bar].vaddr);
	ASSERT_EQ(0, p2p_open_window(&self->p));
	self->region.vaddr = self->b->bars[self->p.bar].vaddr;
	self->region.iova = IOVA_BAR;
	self->region.size = SZ_1M;
	ASSERT_EQ(0, __iommu_map(self->p.iommu, &self->region));
}

FIXTURE_TEARDOWN(opened)
{
	if (self->b)
		vfio_pci_device_cleanup(self->b);
	iommu_close(&self->iommu);
	p2p_close(&self->p);
}

static void expect_region_gone(struct __test_metadata *_metadata, struct p2p *p,
			       struct dma_region *region)
{
	u64 unmapped = 0;

	EXPECT_NE(1, iommu_lookup(p->bdf_a, region->iova, NULL));
	EXPECT_NE(1, iommu_lookup(p->bdf_a, region->iova + region->size - SZ_4K, NULL));
	EXPECT_EQ(0, p2p_lands(p, region->iova, 0));
	EXPECT_EQ(0, __iommu_unmap(p->iommu, region, &unmapped));
	EXPECT_EQ(region->size, unmapped);
}

/* However a device was opened, its mappings end with it */
TEST_F_TIMEOUT(opened, cleanup_removes_the_mapping, TIMEOUT)
{
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	vfio_pci_device_cleanup(self->b);
	self->b = NULL;
	expect_region_gone(_metadata, &self->p, &self->region);
}

/* And with the last reference to it, which may be a mmap or one more fd */
TEST_F_TIMEOUT(opened, the_last_reference_counts, TIMEOUT)
{
	void *bar;
	int fd;

	fd = dup(self->b->fd);
	ASSERT_LE(0, fd);
	bar = bar_mmap(fd, self->p.bar, PROT_READ, 0, SZ_4K);
	ASSERT_NE(NULL, bar);
	vfio_pci_device_cleanup(self->b);
	self->b = NULL;
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);

	close(fd);
	expect_mapped(_metadata, &self->p, IOVA_BAR + SZ_64K, SZ_64K);
	munmap(bar, SZ_4K);
	expect_region_gone(_metadata, &self->p, &self->region);
}

/* What the device was opened in is closed before the device */
TEST_F_TIMEOUT(opened, iommu_closed_before_the_device, TIMEOUT)
{
	iommu_close(&self->iommu);
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
	vfio_pci_device_cleanup(self->b);
	self->b = NULL;
	expect_region_gone(_metadata, &self->p, &self->region);
}

/* Memory that is disabled cannot be mapped, and is mapped again after that */
TEST_F_TIMEOUT(opened, disabled_memory_is_refused, TIMEOUT)
{
	ASSERT_EQ(0, __iommu_unmap(self->p.iommu, &self->region, NULL));
	vfio_pci_cmd_clear(self->b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, bus_read32(self->region.vaddr, NULL));
	EXPECT_EQ(-EFAULT, __iommu_map(self->p.iommu, &self->region));
	vfio_pci_cmd_set(self->b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, bus_read32(self->region.vaddr, NULL));
	ASSERT_EQ(0, __iommu_map(self->p.iommu, &self->region));
	expect_mapped(_metadata, &self->p, IOVA_BAR, 0);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

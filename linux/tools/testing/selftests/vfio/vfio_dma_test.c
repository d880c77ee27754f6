// SPDX-License-Identifier: GPL-2.0
/*
 * What may be mapped for DMA, what may not, and what it costs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_DEVICES	NEEDS("an edu device and one with memory")

/* Device A and device B, which is open */
FIXTURE(dma) {
	struct p2p p;
	s64 avail;
	long locked;
};

FIXTURE_SETUP(dma)
{
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	self->avail = dma_avail(self->p.iommu);
	self->locked = proc_locked_kb();
}

FIXTURE_TEARDOWN(dma)
{
	p2p_close(&self->p);
}

/* A mapping that was refused leaves nothing behind */
static void expect_nothing_mapped(struct __test_metadata *_metadata, struct p2p *p, size_t size,
				  s64 avail, long locked)
{
	EXPECT_NE(1, iommu_lookup(p->bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(p->bdf_a, IOVA_BAR + size - SZ_4K, NULL));
	EXPECT_EQ(0, dma_unmap(p->iommu, IOVA_BAR, size));
	EXPECT_EQ(avail, dma_avail(p->iommu));
	EXPECT_EQ(locked, proc_locked_kb());
}

/* The other tests take the word of the page tables where the kernel shows them */
TEST_F_TIMEOUT(dma, iommu_page_tables_can_be_read, TIMEOUT)
{
	u64 phys;
	int ret;

	ret = iommu_lookup(self->p.bdf_a, IOVA_SCRATCH, &phys);
	if (ret < 0)
		SKIP(return, "this kernel does not show the IOMMU's page tables");
	EXPECT_EQ(1, ret);
	EXPECT_EQ(0, iommu_lookup(self->p.bdf_a, IOVA_BAR, &phys));
}

/* B becomes a device with 1 GiB of memory, if there is one; returns how much to take, or 0 */
static size_t open_large_bar(struct p2p *p, size_t most)
{
	int bar;

	dev_close(&p->b);
	bar = pci_find(&want_mem_1g, 0, p->bdf_b);
	if (bar >= 0)
		p->bar = bar;
	if (pci_bar(p->bdf_b, p->bar, &p->phys, &p->size) || dev_open(&p->b, p->bdf_b, p->iommu))
		return 0;

	return p->size < most ? p->size : most;
}

/* A BAR is mapped, and reached, from its first byte to its last */
TEST_F_TIMEOUT(dma, whole_bar_is_mapped_at_the_right_place, TIMEOUT)
{
	const size_t off[] = { 0, SZ_4K, SZ_64K + SZ_4K, SZ_1M - SZ_4K, SZ_1M - 4 };
	u64 size;
	void *bar;
	size_t i;

	size = self->p.size;
	bar = p2p_bar(&self->p, 0, size);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, size, DMA_RW));
	for (i = 0; i < ARRAY_SIZE(off); i++) {
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + off[i], self->p.phys + off[i]));
		EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + off[i], off[i]));
	}
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + size - SZ_4K,
			       self->p.phys + size - SZ_4K));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + size, NULL));

	EXPECT_EQ(size, dma_unmap(self->p.iommu, IOVA_BAR, size));
	expect_nothing_mapped(_metadata, &self->p, size, self->avail, self->locked);
}

/* Offsets within the BAR and within its mmap are both counted */
TEST_F_TIMEOUT(dma, mapping_from_the_middle_of_an_mmap, TIMEOUT)
{
	void *bar;

	/* The mmap starts at 64K of the BAR, the mapping at 64K of the mmap */
	bar = p2p_bar(&self->p, SZ_64K, 4 * SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar + SZ_64K, SZ_64K, DMA_RW));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys + 2 * SZ_64K));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 2 * SZ_64K));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + SZ_64K, NULL));
}

/* Vmas that are neighbours but not in the order of the BAR they map */
TEST_F_TIMEOUT(dma, mapping_over_vmas_in_reverse_order, TIMEOUT)
{
	const int pages = 8;
	void *area;
	int i;

	area = mmap(NULL, pages * SZ_4K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	for (i = 0; i < pages; i++)
		ASSERT_NE(NULL, bar_mmap_at(area + i * SZ_4K, self->p.b->fd, self->p.bar,
					    PROT_READ | PROT_WRITE, (pages - 1 - i) * SZ_4K,
					    SZ_4K));

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, pages * SZ_4K, DMA_RW));
	for (i = 0; i < pages; i++)
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + i * SZ_4K,
				       self->p.phys + (pages - 1 - i) * SZ_4K));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + SZ_4K, (pages - 2) * SZ_4K));
	EXPECT_EQ(pages * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, pages * SZ_4K));
	expect_nothing_mapped(_metadata, &self->p, pages * SZ_4K, self->avail, self->locked);
}

/* A BAR that the CPU has touched in part is mapped all the same */
TEST_F_TIMEOUT(dma, partly_touched_bar, TIMEOUT)
{
	size_t size, off;
	void *bar;

	size = open_large_bar(&self->p, 128 * SZ_1M);
	ASSERT_NE(0, size);
	if (size < 128 * SZ_1M)
		SKIP(return, NEEDS("a device with 128 MiB of memory or more"));

	bar = p2p_bar(&self->p, 0, size);
	ASSERT_NE(NULL, bar);
	/* A fault may fill the 32 MiB around it, and leaves those beside them empty */
	for (off = 48 * SZ_1M; off < size; off += 64 * SZ_1M)
		EXPECT_EQ(0, bus_read32(bar + off, NULL));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, size, DMA_RW));
	for (off = 0; off < size; off += 4 * SZ_1M)
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + off, self->p.phys + off));
}

/* The vma alone is enough, the file descriptor may be closed */
TEST_F_TIMEOUT(dma, mapping_from_an_mmap_whose_fd_is_closed, TIMEOUT)
{
	void *bar;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	dev_close(&self->p.b);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
}

/* DMA mapping does not fill the CPU's page tables */
TEST_F_TIMEOUT(dma, cpu_page_tables_stay_empty, TIMEOUT)
{
	long before, after;
	size_t size;
	void *bar;

	/* One page table covers 2 MiB: a large BAR shows best */
	size = open_large_bar(&self->p, 64 * SZ_1M);
	ASSERT_NE(0, size);
	if (size < 4 * SZ_1M)
		SKIP(return, NEEDS("a device with 4 MiB of memory or more"));

	bar = p2p_bar(&self->p, 0, size);
	ASSERT_NE(NULL, bar);
	before = proc_page_tables_kb();
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, size, DMA_RW));
	after = proc_page_tables_kb();
	EXPECT_EQ(before, after);
	EXPECT_EQ(size, dma_unmap(self->p.iommu, IOVA_BAR, size));
}

/* Device memory is not locked memory */
TEST_F_TIMEOUT(dma, bar_is_not_charged_to_the_process, TIMEOUT)
{
	void *bar;

	bar = p2p_bar(&self->p, 0, SZ_1M);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_1M, DMA_RW));
	EXPECT_EQ(self->locked, proc_locked_kb());
	EXPECT_EQ(SZ_1M, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));
	EXPECT_EQ(self->locked, proc_locked_kb());
}

/* So no limit on locked memory stands in its way */
TEST_F_TIMEOUT(dma, bar_is_mapped_without_a_right_to_lock_memory, TIMEOUT)
{
	struct rlimit none = { 0, 0 };
	int status;
	void *bar;
	pid_t pid;

	bar = p2p_bar(&self->p, 0, SZ_1M);
	ASSERT_NE(NULL, bar);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* Another user than root has no CAP_IPC_LOCK */
		if (setrlimit(RLIMIT_MEMLOCK, &none) || setuid(65534))
			_exit(1);
		_exit(dma_map(self->p.iommu, IOVA_BAR, bar, SZ_1M, DMA_RW) ? 2 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* What the process may only read, a device must not write */
TEST_F_TIMEOUT(dma, read_only_mmap_is_not_dma_writable, TIMEOUT)
{
	void *bar;

	bar = bar_mmap(self->p.b->fd, self->p.bar, PROT_READ, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_WO));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, SZ_64K, self->avail, self->locked);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));

	/* Touched by the CPU or not makes no difference */
	EXPECT_EQ(0, bus_read32(bar, NULL));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, SZ_64K, self->avail, self->locked);
}

/* Reading is another matter */
TEST_F_TIMEOUT(dma, read_only_mmap_is_dma_readable, TIMEOUT)
{
	u32 *ram = self->p.scratch;
	void *bar;

	bar = bar_mmap(self->p.b->fd, self->p.bar, PROT_READ, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RO));

	mmio_write32(self->p.window, 0x0ddba11);
	*ram = 0;
	EXPECT_EQ(0, vfio_pci_driver_memcpy(self->p.a, IOVA_BAR, IOVA_SCRATCH, 4));
	EXPECT_EQ(0x0ddba11, *ram);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));
}

/* Part of the range is writable, part is not */
TEST_F_TIMEOUT(dma, mprotected_part_of_a_bar_is_not_dma_writable, TIMEOUT)
{
	void *bar;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, mprotect(bar + SZ_64K / 2, SZ_64K / 2, PROT_READ));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, SZ_64K, self->avail, self->locked);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K / 2, DMA_RW));
}

/* Memory of another owner is refused, quietly, and nothing is left behind */
TEST_F_TIMEOUT(dma, foreign_pfnmap_is_refused, TIMEOUT)
{
	int log;

	log = kmsg_open();
	EXPECT_EQ(0, bus_read32(self->p.window, NULL));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, self->p.window, SZ_1M, DMA_RW));
	EXPECT_GE(0, kmsg_new_lines(log, "vfio"));
	fd_close(&log);
	expect_nothing_mapped(_metadata, &self->p, SZ_1M, self->avail, self->locked);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));
}

/* Memory of another owner behind a BAR and RAM that are fine */
TEST_F_TIMEOUT(dma, foreign_pfnmap_beside_a_bar_is_refused, TIMEOUT)
{
	void *area;
	int ret;

	area = mmap(NULL, SZ_1M + 2 * SZ_64K, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	ASSERT_NE(MAP_FAILED, mremap(self->p.window, SZ_1M, SZ_1M, MREMAP_MAYMOVE | MREMAP_FIXED,
				     area + 2 * SZ_64K));
	self->p.window = area + 2 * SZ_64K;

	ret = dma_map(self->p.iommu, IOVA_BAR, area, 3 * SZ_64K, DMA_RW);
	EXPECT_EQ(-EFAULT, ret);
	expect_nothing_mapped(_metadata, &self->p, 3 * SZ_64K, self->avail, self->locked);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR + SZ_64K, 0));
}

/* RAM, a BAR, and then nothing at all */
TEST_F_TIMEOUT(dma, mapping_that_fails_half_way_leaves_nothing, TIMEOUT)
{
	void *area;

	area = mmap(NULL, 3 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	ASSERT_EQ(0, munmap(area + 2 * SZ_64K, SZ_64K));

	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, area, 3 * SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, 3 * SZ_64K, self->avail, self->locked);
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR + SZ_64K, 0));

	/* The device goes without a trace of the attempt, and can come back */
	p2p_release(&self->p, area, 2 * SZ_64K);
	EXPECT_EQ(0, p2p_open_peer(&self->p));
}

/* Memory that is disabled is not mapped, and the caller hears of it */
TEST_F_TIMEOUT(dma, disabled_memory_is_refused, TIMEOUT)
{
	void *bar;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, SZ_64K, self->avail, self->locked);

	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
}

/* Of two devices in the range the second has its memory disabled */
TEST_F_TIMEOUT(dma, disabled_memory_behind_ram_is_refused, TIMEOUT)
{
	void *area;

	area = mmap(NULL, 2 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, area, 2 * SZ_64K, DMA_RW));
	expect_nothing_mapped(_metadata, &self->p, 2 * SZ_64K, self->avail, self->locked);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
}

/* One request unmaps BARs and RAM, as it always did */
TEST_F_TIMEOUT(dma, one_unmap_covers_bars_and_ram, TIMEOUT)
{
	void *bar, *ram;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ram = ram_alloc(SZ_64K);
	ASSERT_NE(NULL, ram);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + 2 * SZ_64K, ram, SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + 4 * SZ_64K, bar, SZ_64K, DMA_RO));

	/* A mapping is not cut in two, whatever it maps */
	EXPECT_EQ(-EINVAL, dma_unmap(self->p.iommu, IOVA_BAR, SZ_4K));
	EXPECT_EQ(-EINVAL, dma_unmap(self->p.iommu, IOVA_BAR + SZ_4K, SZ_1M - SZ_4K));
	EXPECT_EQ(3 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M));
	expect_nothing_mapped(_metadata, &self->p, SZ_1M, self->avail, self->locked);
}

/* What is mapped is taken, as ever */
TEST_F_TIMEOUT(dma, mapped_iova_is_refused, TIMEOUT)
{
	void *bar;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR + SZ_4K, bar, SZ_4K, DMA_RW));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

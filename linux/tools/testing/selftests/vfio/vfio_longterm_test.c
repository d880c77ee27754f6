// SPDX-License-Identifier: GPL-2.0
/*
 * Pins of type1 are long-term ones: memory that must not be held for long is refused, or
 * moved away first.  What files have in the page cache may be held, within limits.
 *
 * These need a movable zone and a pmem device, which they format.  The kernel parameters
 *
 *	movablecore=512M memmap=64M!1G VFIO_SELFTESTS_PMEM=/dev/pmem0
 *
 * give a machine both of them, and the first process the last one as a variable of its
 * environment, where the tests look for it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_DEVICE	NEEDS("an edu device")

#define SIZE		RAM_SIZE
#define PAGES		(SIZE / SZ_4K)
#define FILE_SIZE	SZ_64K

/*
 * Movable zones
 */
#define MAX_ZONES	8

struct zones {
	int n;
	u64 start[MAX_ZONES];
	u64 pages[MAX_ZONES];
};

static void find_movable_zones(struct zones *z)
{
	unsigned long long value, spanned = 0;
	bool movable = false;
	char line[256];
	FILE *f;

	z->n = 0;
	f = fopen("/proc/zoneinfo", "re");
	if (!f)
		return;

	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "Node ", 5))
			movable = strstr(line, "Movable");
		if (sscanf(line, " spanned %llu", &value) == 1)
			spanned = value;
		if (movable && spanned && z->n < MAX_ZONES &&
		    sscanf(line, " start_pfn: %llu", &value) == 1) {
			z->start[z->n] = value;
			z->pages[z->n++] = spanned;
		}
	}
	fclose(f);
}

static int pages_in_zones(const struct zones *z, const u64 *pfn)
{
	int i, zone, n = 0;

	for (i = 0; i < PAGES; i++)
		for (zone = 0; zone < z->n; zone++)
			n += pfn[i] - z->start[zone] < z->pages[zone];

	return n;
}

FIXTURE(movable) {
	struct p2p p;
};

FIXTURE_VARIANT(movable) {
	struct ram_kind kind;
};

FIXTURE_VARIANT_ADD(movable, anon) {
	.kind = { },
};

FIXTURE_VARIANT_ADD(movable, thp) {
	.kind = { .huge = true },
};

FIXTURE_VARIANT_ADD(movable, shmem) {
	.kind = { .shared = true },
};

FIXTURE_VARIANT_ADD(movable, shmem_thp) {
	.kind = { .shared = true, .huge = true },
};

FIXTURE_VARIANT_ADD(movable, hugetlb) {
	.kind = { .hugetlb = true },
};

FIXTURE_SETUP(movable)
{
	int ret = p2p_open(&self->p, &want_edu);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICE);
}

FIXTURE_TEARDOWN(movable)
{
	p2p_close(&self->p);
}

/* Pages that are to stay for long do not stay where all has to be movable */
TEST_F_TIMEOUT(movable, pages_leave_the_movable_zone, TIMEOUT)
{
	u64 before[PAGES], after[PAGES];
	struct zones movable;
	void *mem;
	int fd;

	find_movable_zones(&movable);
	if (!movable.n)
		SKIP(return, "needs a movable zone");
	if (ram_is_missing(&variant->kind))
		SKIP(return, "%s", ram_is_missing(&variant->kind));

	mem = ram_of_kind(&variant->kind, &fd);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, pages_of(mem, PAGES, before));
	ASSERT_NE(0, pages_in_zones(&movable, before));

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, mem, SIZE, DMA_RW));
	ASSERT_EQ(0, pages_of(mem, PAGES, after));
	EXPECT_EQ(0, pages_in_zones(&movable, after));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, after[0] * SZ_4K));
	EXPECT_EQ(1, p2p_agrees(&self->p, IOVA_BAR + SIZE / 2, mem + SIZE / 2));
}

/*
 * A file on a filesystem of its own
 */
struct fs {
	struct p2p p;
	char dir[PMEM_DIR_LEN];
	int fd;
	void *mem;		/* all of the file */
	s64 avail;
	long locked;
};

static int fs_unmount(struct fs *fs)
{
	if (fs->mem)
		munmap(fs->mem, FILE_SIZE);
	fs->mem = NULL;
	fd_close(&fs->fd);

	return pmem_unmount(fs->dir);
}

/* With all its blocks in place */
static int fs_create(const struct fs *fs, const char *name)
{
	char path[64], bytes[SZ_4K];
	int fd, i;

	snprintf(path, sizeof(path), "%s/%s", fs->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	memset(bytes, RAM_BYTE, sizeof(bytes));
	for (i = 0; fd >= 0 && i < FILE_SIZE / SZ_4K; i++)
		if (write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
			fd_close(&fd);

	return fd;
}

/* Says why it cannot be had, or NULL */
static const char *fs_open(struct __test_metadata *_metadata, struct fs *fs, const char *options)
{
	int ret = p2p_open(&fs->p, &want_edu);
	const char *missing;

	ASSERT_TRUE(!ret || ret == -ENODEV);
	missing = ret ? NO_DEVICE : pmem_mount(fs->dir, options);
	if (missing)
		return missing;

	fs->fd = fs_create(fs, "file");
	ASSERT_LE(0, fs->fd);
	fs->avail = dma_avail(fs->p.iommu);
	fs->locked = proc_locked_kb();

	return NULL;
}

static void fs_close(struct fs *fs)
{
	fs_unmount(fs);
	p2p_close(&fs->p);
}

static void *fs_mmap(const struct fs *fs, int prot, int flags)
{
	void *mem = mmap(NULL, FILE_SIZE, prot, flags, fs->fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static void expect_nothing_mapped(struct __test_metadata *_metadata, struct fs *fs)
{
	EXPECT_NE(1, iommu_lookup(fs->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(0, dma_unmap(fs->p.iommu, IOVA_BAR, 2 * FILE_SIZE));
	EXPECT_EQ(fs->avail, dma_avail(fs->p.iommu));
	EXPECT_EQ(fs->locked, proc_locked_kb());
}

FIXTURE(dax) {
	struct fs fs;
};

FIXTURE_VARIANT(dax) {
	int flags;
	int prot;
	bool touched;
};

FIXTURE_VARIANT_ADD(dax, shared) {
	.flags = MAP_SHARED,
	.prot = PROT_READ | PROT_WRITE,
	.touched = true,
};

FIXTURE_VARIANT_ADD(dax, shared_untouched) {
	.flags = MAP_SHARED,
	.prot = PROT_READ | PROT_WRITE,
};

FIXTURE_VARIANT_ADD(dax, shared_read_only) {
	.flags = MAP_SHARED,
	.prot = PROT_READ,
	.touched = true,
};

FIXTURE_VARIANT_ADD(dax, private_untouched) {
	.flags = MAP_PRIVATE,
	.prot = PROT_READ | PROT_WRITE,
};

FIXTURE_SETUP(dax)
{
	struct fs *fs = &self->fs;
	const char *missing;
	struct statx st;
	size_t i;

	missing = fs_open(_metadata, fs, "dax");
	if (missing)
		SKIP(return, "%s", missing);

	ASSERT_EQ(0, statx(fs->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st));
	ASSERT_TRUE(st.stx_attributes & STATX_ATTR_DAX);
	fs->mem = fs_mmap(fs, variant->prot, variant->flags);
	ASSERT_NE(NULL, fs->mem);
	for (i = 0; variant->touched && i < FILE_SIZE; i += SZ_4K)
		if (variant->prot & PROT_WRITE)
			memset(fs->mem + i, RAM_BYTE, SZ_4K);
		else
			mmio_read32(fs->mem + i);
}

FIXTURE_TEARDOWN(dax)
{
	fs_close(&self->fs);
}

/* Memory of fs-dax is refused; the file can be truncated, and the filesystem unmounted */
TEST_F_TIMEOUT(dax, fs_dax_is_refused, TIMEOUT)
{
	struct fs *fs = &self->fs;
	struct iommu *iommu = fs->p.iommu;

	EXPECT_EQ(-EOPNOTSUPP, dma_map(iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RO));
	expect_nothing_mapped(_metadata, fs);
	if (variant->prot & PROT_WRITE) {
		EXPECT_EQ(-EOPNOTSUPP, dma_map(iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RW));
		EXPECT_EQ(-EOPNOTSUPP, dma_map(iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_WO));
		expect_nothing_mapped(_metadata, fs);
	}

	EXPECT_EQ(0, ftruncate(fs->fd, 0));
	EXPECT_EQ(-EFAULT, bus_read32(fs->mem, NULL));
	EXPECT_EQ(0, fs_unmount(fs));
}

/* So is memory that is fine as far as to where fs-dax memory begins */
TEST_F_TIMEOUT(dax, ram_beside_fs_dax_is_refused, TIMEOUT)
{
	struct fs *fs = &self->fs;
	void *area;

	area = ram_alloc(2 * FILE_SIZE);
	ASSERT_NE(NULL, area);
	ASSERT_EQ(area + FILE_SIZE, mremap(fs->mem, FILE_SIZE, FILE_SIZE,
					   MREMAP_MAYMOVE | MREMAP_FIXED, area + FILE_SIZE));
	fs->mem = area + FILE_SIZE;
	EXPECT_EQ(-EOPNOTSUPP, dma_map(fs->p.iommu, IOVA_BAR, area, 2 * FILE_SIZE, DMA_RO));
	expect_nothing_mapped(_metadata, fs);
	EXPECT_EQ(0, ftruncate(fs->fd, 0));
	EXPECT_EQ(0, fs_unmount(fs));

	/* Without it the same is mapped, and charged */
	EXPECT_EQ(0, dma_map(fs->p.iommu, IOVA_BAR, area, FILE_SIZE, DMA_RW));
	EXPECT_EQ(fs->locked + FILE_SIZE / SZ_1K, proc_locked_kb());
	EXPECT_EQ(1, p2p_agrees(&fs->p, IOVA_BAR, area));
}

/*
 * The same file with its pages in the page cache
 */
FIXTURE(file) {
	struct fs fs;
};

FIXTURE_SETUP(file)
{
	struct fs *fs = &self->fs;
	const char *missing;

	missing = fs_open(_metadata, fs, "");
	if (missing)
		SKIP(return, "%s", missing);

	fs->mem = fs_mmap(fs, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(NULL, fs->mem);
}

FIXTURE_TEARDOWN(file)
{
	fs_close(&self->fs);
}

/* Those that the process sees now, whether it has them in its page tables or not */
static int touched_pages_of(const void *mem, size_t n, u64 *pfn)
{
	size_t i;

	for (i = 0; i < n; i++)
		mmio_read32(mem + i * SZ_4K);

	return pages_of(mem, n, pfn);
}

/* How many pages of the file are in the page cache? */
static int pages_cached(int fd)
{
	unsigned char in[FILE_SIZE / SZ_4K] = { };
	int i, n = 0;
	void *mem;

	mem = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return -1;
	if (mincore(mem, FILE_SIZE, in))
		n = -1;
	munmap(mem, FILE_SIZE);
	for (i = 0; n >= 0 && i < FILE_SIZE / SZ_4K; i++)
		n += in[i] & 1;

	return n;
}

/* The page cache keeps pages that are mapped for DMA, as it does not keep others */
TEST_F_TIMEOUT(file, page_cache_keeps_the_pages, TIMEOUT)
{
	const int pages = FILE_SIZE / SZ_4K;
	u64 before[FILE_SIZE / SZ_4K], after[FILE_SIZE / SZ_4K];
	char bytes[SPAN];
	struct fs *fs = &self->fs;
	int other;

	other = fs_create(fs, "other");
	ASSERT_LE(0, other);
	ASSERT_EQ(0, dma_map(fs->p.iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RO));
	EXPECT_EQ(fs->locked + FILE_SIZE / SZ_1K, proc_locked_kb());
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR + SZ_4K, fs->mem + SZ_4K));
	ASSERT_EQ(0, touched_pages_of(fs->mem, pages, before));

	/* With no mapping but the device's, the pages written back, and told to go */
	ASSERT_EQ(0, munmap(fs->mem, FILE_SIZE));
	ASSERT_EQ(0, fsync(other));
	ASSERT_EQ(0, fsync(fs->fd));
	EXPECT_EQ(pages, pages_cached(other));
	EXPECT_EQ(0, posix_fadvise(other, 0, 0, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, posix_fadvise(fs->fd, 0, 0, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, pages_cached(other));
	EXPECT_EQ(pages, pages_cached(fs->fd));
	close(other);

	fs->mem = fs_mmap(fs, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(NULL, fs->mem);
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR + SZ_4K, fs->mem + SZ_4K));
	ASSERT_EQ(0, touched_pages_of(fs->mem, pages, after));
	EXPECT_EQ(0, memcmp(before, after, sizeof(before)));

	/* What is written by other means than the mmap is there too */
	memset(bytes, 0x66, sizeof(bytes));
	ASSERT_EQ(SPAN, pwrite(fs->fd, bytes, SPAN, 0));
	EXPECT_EQ(1, p2p_still_reads(&fs->p, IOVA_BAR, 0x66));

	EXPECT_EQ(FILE_SIZE, dma_unmap(fs->p.iommu, IOVA_BAR, FILE_SIZE));
	expect_nothing_mapped(_metadata, fs);
	EXPECT_EQ(0, fs_unmount(fs));
}

/* Shared by processes that write to it, move it, and unmap their halves of it */
TEST_F_TIMEOUT(file, pages_of_a_file_stay, TIMEOUT)
{
	const int half = FILE_SIZE / 2, pages = half / SZ_4K;
	u64 before[FILE_SIZE / SZ_4K], after[FILE_SIZE / SZ_4K];
	struct fs *fs = &self->fs;
	pid_t pid;
	int status;
	void *to;

	ASSERT_EQ(0, dma_map(fs->p.iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RO));
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR, fs->mem));
	ASSERT_EQ(0, touched_pages_of(fs->mem, pages, before));

	pid = fork();
	if (!pid) {
		die_with_parent();
		memset(fs->mem, 0x66, SPAN);
		_exit(munmap(fs->mem, half) ? 1 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_EQ(1, p2p_still_reads(&fs->p, IOVA_BAR, 0x66));
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR, fs->mem));

	ASSERT_EQ(0, munmap(fs->mem + half, half));
	to = ram_reserve(FILE_SIZE);
	ASSERT_NE(NULL, to);
	ASSERT_EQ(to, mremap(fs->mem, half, half, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	fs->mem = to;
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR, fs->mem));
	ASSERT_EQ(0, mprotect(fs->mem, half, PROT_NONE));
	ASSERT_EQ(0, mprotect(fs->mem, half, PROT_READ | PROT_WRITE));
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR, fs->mem));
	ASSERT_EQ(0, fsync(fs->fd));
	ASSERT_EQ(0, madvise(fs->mem, half, MADV_DONTFORK));
	EXPECT_EQ(1, p2p_reads(&fs->p, IOVA_BAR, fs->mem));

	ASSERT_EQ(0, touched_pages_of(fs->mem, pages, after));
	EXPECT_EQ(0, memcmp(before, after, pages * sizeof(*before)));
	EXPECT_EQ(FILE_SIZE, dma_unmap(fs->p.iommu, IOVA_BAR, FILE_SIZE));
	expect_nothing_mapped(_metadata, fs);
	EXPECT_EQ(0, fs_unmount(fs));
}

/* The file system would not know what the device writes */
TEST_F_TIMEOUT(file, file_is_not_written_by_devices, TIMEOUT)
{
	struct fs *fs = &self->fs;

	ASSERT_EQ(-EFAULT, dma_map(fs->p.iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RW));
	expect_nothing_mapped(_metadata, fs);
	EXPECT_EQ(0, fs_unmount(fs));
}

/*
 * What a process must not do.  A file can be truncated while it is mapped for DMA, and what
 * was cut off is from then on the device's alone.
 */
TEST_F_TIMEOUT(file, truncated_pages_are_the_devices_alone, TIMEOUT)
{
	struct fs *fs = &self->fs;

	ASSERT_EQ(0, dma_map(fs->p.iommu, IOVA_BAR, fs->mem, FILE_SIZE, DMA_RO));
	ASSERT_EQ(0, ftruncate(fs->fd, 0));
	EXPECT_EQ(-EFAULT, bus_read32(fs->mem, NULL));
	EXPECT_EQ(1, p2p_still_reads(&fs->p, IOVA_BAR, RAM_BYTE));

	ASSERT_EQ(0, ftruncate(fs->fd, FILE_SIZE));
	memset(fs->mem, 0x77, FILE_SIZE);
	EXPECT_EQ(1, p2p_still_reads(&fs->p, IOVA_BAR, RAM_BYTE));
	EXPECT_EQ(0, fs_unmount(fs));
	EXPECT_EQ(1, p2p_still_reads(&fs->p, IOVA_BAR, RAM_BYTE));

	EXPECT_EQ(FILE_SIZE, dma_unmap(fs->p.iommu, IOVA_BAR, FILE_SIZE));
	expect_nothing_mapped(_metadata, fs);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

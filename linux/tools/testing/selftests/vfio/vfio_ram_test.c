// SPDX-License-Identifier: GPL-2.0
/*
 * Ordinary memory that is mapped for DMA: whatever the process and the kernel do with it,
 * the device and the process go on seeing the same bytes, and what is pinned is charged.
 *
 * Some tests need two NUMA nodes; numa=fake=2 will do, as a kernel parameter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		180

#define NO_DEVICE	NEEDS("an edu device")

#define SIZE		RAM_SIZE
#define PAGES		(SIZE / SZ_4K)
#define HALF		(SIZE / 2)

/* Where one transfer touches the last page of one half and the first of the other */
#define MIDDLE		(HALF - SPAN / 2)

#define IOVA_RAM	IOVA_BAR
#define IOVA_AGAIN	(2 * IOVA_BAR)

/* What is written by whom, where it matters */
#define OURS		RAM_BYTE
#define THEIRS		0x22
#define OTHERS		0x33

#define THP		"/sys/kernel/mm/transparent_hugepage/"

/* Of whoever moves pages, and of whoever does not want them moved */
#define ROUNDS		10

/* A range of memory that may be mapped at IOVA_RAM, and the pages it had then */
struct ram {
	struct p2p p;
	void *mem;
	int fd;
	u64 pfn[PAGES];
	s64 avail;
	long locked;
};

/* Says whether there is a device */
static bool ram_open(struct __test_metadata *_metadata, struct ram *r)
{
	int ret = p2p_open(&r->p, &want_edu);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		return false;

	r->fd = -1;
	r->avail = dma_avail(r->p.iommu);
	r->locked = proc_locked_kb();

	return true;
}

static void ram_close(struct ram *r)
{
	fd_close(&r->fd);
	p2p_close(&r->p);
}

/* How many of the pages are not those that were mapped for DMA?  All are touched first */
static int pages_moved(const struct ram *r, size_t first, size_t n)
{
	u64 now[PAGES];
	int moved = 0;
	size_t i;

	for (i = first; i < first + n; i++)
		mmio_read32(r->mem + i * SZ_4K);
	if (pages_of(r->mem + first * SZ_4K, n, now))
		return -1;

	for (i = 0; i < n; i++)
		moved += now[i] != r->pfn[first + i];

	return moved;
}

static void ram_map(struct __test_metadata *_metadata, struct ram *r, u32 flags)
{
	const size_t at[] = { 0, PAGES / 2 - 1, PAGES / 2, PAGES - 1 };
	size_t i;

	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, flags));
	ASSERT_EQ(0, pages_of(r->mem, PAGES, r->pfn));
	for (i = 0; i < ARRAY_SIZE(at); i++)
		EXPECT_TRUE(iommu_maps(r->p.bdf_a, IOVA_RAM + at[i] * SZ_4K,
				       r->pfn[at[i]] * SZ_4K));
}

static int ram_agrees(struct ram *r, size_t offset)
{
	return p2p_agrees(&r->p, IOVA_RAM + offset, r->mem + offset);
}

static int ram_still_reads(struct ram *r, size_t offset, u8 byte)
{
	return p2p_still_reads(&r->p, IOVA_RAM + offset, byte);
}

static u8 byte_at(const void *addr)
{
	return __atomic_load_n((const u8 *)addr, __ATOMIC_RELAXED);
}

/* Nothing is left of a mapping that was refused, or is gone */
static void expect_nothing_mapped(struct __test_metadata *_metadata, struct ram *r)
{
	EXPECT_NE(1, iommu_lookup(r->p.bdf_a, IOVA_RAM, NULL));
	EXPECT_NE(1, iommu_lookup(r->p.bdf_a, IOVA_RAM + SIZE - SZ_4K, NULL));
	EXPECT_EQ(0, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	EXPECT_EQ(r->avail, dma_avail(r->p.iommu));
	EXPECT_EQ(r->locked, proc_locked_kb());
}

/*
 * A child that has the memory too, and does with it what it is told to
 */
enum order {
	LOOK,		/* answer what is in the middle */
	WRITE,		/* write THEIRS there */
	UNMAP,		/* the first half */
	EXIT,
};

struct child {
	pid_t pid;
	int sock;
};

static int child_main(struct ram *r, int sock)
{
	u8 order, answer;

	while (read(sock, &order, 1) == 1 && order != EXIT) {
		if (order == WRITE)
			memset(r->mem + MIDDLE, THEIRS, SPAN);
		if (order == UNMAP)
			answer = munmap(r->mem, HALF) ? 1 : 0;
		else
			answer = byte_at(r->mem + MIDDLE);
		if (write(sock, &answer, 1) != 1)
			break;
	}

	return 0;
}

static int child_start(struct child *child, struct ram *r)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -errno;

	child->pid = fork();
	if (!child->pid) {
		die_with_parent();
		close(pair[0]);
		_exit(child_main(r, pair[1]));
	}
	close(pair[1]);
	child->sock = pair[0];

	return child->pid < 0 ? -errno : 0;
}

static int child_do(struct child *child, u8 order)
{
	u8 answer;

	if (send(child->sock, &order, 1, MSG_NOSIGNAL) != 1 || read(child->sock, &answer, 1) != 1)
		return -1;

	return answer;
}

static int child_end(struct child *child)
{
	u8 order = EXIT;
	int status;

	if (send(child->sock, &order, 1, MSG_NOSIGNAL) != 1)
		return -1;
	close(child->sock);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -1;

	return status;
}

/* Run it in a child; what it returns */
static int in_child(int (*fn)(struct ram *r), struct ram *r)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		die_with_parent();
		_exit(fn(r));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;

	return WEXITSTATUS(status);
}

/*
 * NUMA nodes
 */
#define SAMPLES		16

/* Where in the memory the samples are: one a huge page would do */
static void samples_of(void *mem, void **at)
{
	int i;

	for (i = 0; i < SAMPLES; i++)
		at[i] = mem + i * (SIZE / SAMPLES);
}

static int node_of(void *addr)
{
	int node = -1;

	if (syscall(SYS_move_pages, 0, 1UL, &addr, NULL, &node, 0))
		return -errno;

	return node;
}

/* Why nothing can be moved to another node, or NULL */
static const char *pages_cannot_move(void *mem)
{
	if (access("/sys/devices/system/node/node1", F_OK))
		return "needs two NUMA nodes";
	if (node_of(mem) < 0)
		return "this kernel moves no pages on request";

	return NULL;
}

/* As far as it can be moved, whoever else has it too */
static int move_to(void *mem, int node)
{
	const unsigned long n = SAMPLES;
	int nodes[SAMPLES], status[SAMPLES], i;
	void *at[SAMPLES];

	samples_of(mem, at);
	for (i = 0; i < SAMPLES; i++) {
		nodes[i] = node;
		mmio_read32(at[i]);
	}
	if (syscall(SYS_move_pages, 0, n, at, nodes, status, MPOL_MF_MOVE_ALL) < 0)
		return -errno;
	for (i = 0; i < SAMPLES; i++)
		mmio_read32(at[i]);

	return 0;
}

/* Move memory to the other node; how many samples were not? */
static int move_pages_away(void *mem)
{
	u64 before[PAGES], after[PAGES];
	int i, stayed = 0;

	if (pages_of(mem, PAGES, before) || move_to(mem, node_of(mem) ? 0 : 1) ||
	    pages_of(mem, PAGES, after))
		return -1;

	for (i = 0; i < SAMPLES; i++)
		stayed += before[i * PAGES / SAMPLES] == after[i * PAGES / SAMPLES];

	return stayed;
}

/* Fails where there is no khugepaged */
static int khugepaged_hurries(bool hurry)
{
	return write_text(THP "khugepaged/pages_to_scan", "65536") ||
	       write_text(THP "khugepaged/alloc_sleep_millisecs", "10") ||
	       write_text(THP "khugepaged/scan_sleep_millisecs", hurry ? "10" : "10000");
}

/*
 * Every kind of memory there is to map for reading and writing
 */
FIXTURE(ram) {
	struct ram r;
};

FIXTURE_VARIANT(ram) {
	struct ram_kind kind;
};

FIXTURE_VARIANT_ADD(ram, anon) {
	.kind = { },
};

FIXTURE_VARIANT_ADD(ram, thp) {
	.kind = { .huge = true },
};

FIXTURE_VARIANT_ADD(ram, shmem) {
	.kind = { .shared = true },
};

FIXTURE_VARIANT_ADD(ram, shmem_thp) {
	.kind = { .shared = true, .huge = true },
};

FIXTURE_VARIANT_ADD(ram, hugetlb) {
	.kind = { .shared = true, .hugetlb = true },
};

FIXTURE_VARIANT_ADD(ram, hugetlb_private) {
	.kind = { .hugetlb = true },
};

FIXTURE_SETUP(ram)
{
	const struct ram_kind *kind = &variant->kind;
	struct ram *r = &self->r;

	if (!ram_open(_metadata, r))
		SKIP(return, NO_DEVICE);
	if (ram_is_missing(kind))
		SKIP(return, "%s", ram_is_missing(kind));

	r->mem = ram_of_kind(kind, &r->fd);
	ASSERT_NE(NULL, r->mem);
	ASSERT_EQ(kind->huge || kind->hugetlb, ram_is_huge(r->mem));
}

FIXTURE_TEARDOWN(ram)
{
	ram_close(&self->r);
}

/* Of a child and its parent that both write, here the child does so first */
TEST_F_TIMEOUT(ram, child_writes_first, TIMEOUT)
{
	const u8 seen = variant->kind.shared ? THEIRS : OURS;
	struct ram *r = &self->r;
	struct child child;

	ram_map(_metadata, r, DMA_RW);
	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(THEIRS, child_do(&child, WRITE));
	EXPECT_EQ(seen, byte_at(r->mem + MIDDLE));
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, seen));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
}

/* Here the parent does, and the device; to the child nothing of it is visible */
TEST_F_TIMEOUT(ram, parent_writes_first, TIMEOUT)
{
	const u8 sees = variant->kind.shared ? OTHERS : OURS;
	struct ram *r = &self->r;
	struct child child;

	ram_map(_metadata, r, DMA_RW);
	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	memset(r->mem + MIDDLE, OTHERS, SPAN);
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, OTHERS));
	EXPECT_EQ(sees, child_do(&child, LOOK));
	EXPECT_EQ(THEIRS, child_do(&child, WRITE));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
}

/* A child that was there before the memory was mapped for DMA */
TEST_F_TIMEOUT(ram, mapped_while_a_child_shares_it, TIMEOUT)
{
	struct ram *r = &self->r;
	struct child child;

	ASSERT_EQ(0, child_start(&child, r));
	ram_map(_metadata, r, DMA_RW);
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(THEIRS, child_do(&child, WRITE));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
}

/* Parent and child unmap a half each; what the parent has left is the device's too */
TEST_F_TIMEOUT(ram, each_unmaps_a_half, TIMEOUT)
{
	struct ram *r = &self->r;
	struct child child;

	if (variant->kind.hugetlb)
		SKIP(return, "half a hugetlb page cannot be unmapped");

	ram_map(_metadata, r, DMA_RW);
	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(0, child_do(&child, UNMAP));
	EXPECT_EQ(0, munmap(r->mem + HALF, HALF));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES / 2));

	/* What was unmapped is nobody else's while the device has it */
	EXPECT_EQ(1, ram_still_reads(r, HALF, OURS));
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
}

/* Wherever the process has the memory in its address space */
TEST_F_TIMEOUT(ram, mremap_takes_the_pages_along, TIMEOUT)
{
	struct ram *r = &self->r;
	void *from, *to;

	ram_map(_metadata, r, DMA_RW);
	from = r->mem;
	to = ram_reserve(2 * SIZE);
	ASSERT_NE(NULL, to);
	/* Where a huge page does not fit */
	if (!variant->kind.hugetlb)
		to += 3 * SZ_4K;
	r->mem = mremap(from, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (r->mem == MAP_FAILED && variant->kind.hugetlb)
		SKIP(return, "this kernel does not move hugetlb pages");
	ASSERT_EQ(to, r->mem);
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));

	r->mem = mremap(to, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, from);
	ASSERT_EQ(from, r->mem);
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
}

/* Memory that the process forbids itself to write, and allows again */
TEST_F_TIMEOUT(ram, mprotect_off_and_on, TIMEOUT)
{
	const int prots[] = { PROT_READ, PROT_NONE };
	struct ram *r = &self->r;
	size_t i;

	ram_map(_metadata, r, DMA_RW);
	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		ASSERT_EQ(0, mprotect(r->mem, SIZE, prots[i]));
		ASSERT_EQ(0, mprotect(r->mem, SIZE, PROT_READ | PROT_WRITE));
		EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	}

	/* A half alone, which splits a huge page */
	if (!variant->kind.hugetlb) {
		ASSERT_EQ(0, mprotect(r->mem, HALF, PROT_READ));
		ASSERT_EQ(0, mprotect(r->mem, HALF, PROT_READ | PROT_WRITE));
		EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	}
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
}

/* Memory that children do not get, in part and as a whole */
TEST_F_TIMEOUT(ram, dontfork, TIMEOUT)
{
	struct ram *r = &self->r;
	struct child child;

	ram_map(_metadata, r, DMA_RW);
	ASSERT_EQ(0, madvise(r->mem, variant->kind.hugetlb ? SIZE : HALF, MADV_DONTFORK));
	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, child_end(&child));

	ASSERT_EQ(0, madvise(r->mem, SIZE, MADV_DONTFORK));
	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
}

/* Pages are not moved to another node, as they are when not mapped for DMA */
TEST_F_TIMEOUT(ram, move_pages_leaves_it_where_it_is, TIMEOUT)
{
	struct ram *r = &self->r;
	void *other;
	int fd;

	if (pages_cannot_move(r->mem))
		SKIP(return, "%s", pages_cannot_move(r->mem));

	ram_map(_metadata, r, DMA_RW);
	other = ram_of_kind(&variant->kind, &fd);
	ASSERT_NE(NULL, other);
	EXPECT_EQ(0, move_pages_away(other));
	EXPECT_EQ(SAMPLES, move_pages_away(r->mem));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));

	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	EXPECT_EQ(0, move_pages_away(r->mem));
}

/* One mapping, with all that processes may do to its memory done in turn */
TEST_F_TIMEOUT(ram, one_thing_after_the_other, TIMEOUT)
{
	struct ram *r = &self->r;
	struct child child, other;
	void *to;

	if (variant->kind.hugetlb)
		SKIP(return, "half a hugetlb page cannot be unmapped");

	ram_map(_metadata, r, DMA_RW);
	/* A vma of its own in the middle, so that a huge page is mapped in pieces */
	ASSERT_EQ(0, madvise(r->mem + HALF, SZ_4K, MADV_DONTFORK));
	ASSERT_EQ(0, madvise(r->mem + HALF, SZ_4K, MADV_DOFORK));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));

	ASSERT_EQ(0, child_start(&child, r));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(THEIRS, child_do(&child, WRITE));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, child_do(&child, UNMAP));
	ASSERT_EQ(0, munmap(r->mem + HALF, HALF));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));

	to = ram_reserve(SIZE);
	ASSERT_NE(NULL, to);
	to += 3 * SZ_4K;
	ASSERT_EQ(to, mremap(r->mem, HALF, HALF, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	r->mem = to;
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	ASSERT_EQ(0, mprotect(r->mem, HALF, PROT_NONE));
	ASSERT_EQ(0, mprotect(r->mem, HALF, PROT_READ | PROT_WRITE));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	ASSERT_EQ(0, madvise(r->mem, HALF, MADV_DONTFORK));
	ASSERT_EQ(0, child_start(&other, r));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	EXPECT_EQ(0, child_end(&child));
	EXPECT_EQ(0, child_end(&other));
	EXPECT_EQ(1, ram_agrees(r, HALF - SPAN));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES / 2));

	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

/* A thread that has the kernel move pages, by all the ways that there are */
struct mover {
	void *mapped;
	void *other;		/* not mapped for DMA */
	unsigned int rounds;
	unsigned int moved;	/* rounds in which the other one's pages were */
	bool stop;
};

static void *mover_main(void *arg)
{
	u64 before[PAGES], after[PAGES];
	struct mover *m = arg;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		pages_of(m->other, PAGES, before);
		move_to(m->other, m->rounds & 1);
		move_to(m->mapped, m->rounds & 1);
		write_text("/proc/sys/vm/compact_memory", "1");
		pages_of(m->other, PAGES, after);
		m->moved += memcmp(before, after, sizeof(before)) != 0;
		__atomic_fetch_add(&m->rounds, 1, __ATOMIC_RELEASE);
	}

	return NULL;
}

/*
 * While pages are moved, compacted and put together to huge ones, and children come
 * and write and go, and other memory is mapped and unmapped.
 */
TEST_F_TIMEOUT(ram, pages_are_moved_all_the_while, TIMEOUT)
{
	u64 deadline = now_us() + TIMEOUT / 2 * 1000000ULL;
	struct mover mover = { };
	struct ram *r = &self->r;
	struct child child;
	pthread_t thread;
	void *more;
	int n, fd;

	if (pages_cannot_move(r->mem))
		SKIP(return, "%s", pages_cannot_move(r->mem));

	more = ram_alloc(SZ_64K);
	ASSERT_NE(NULL, more);
	mover.mapped = r->mem;
	mover.other = ram_of_kind(&variant->kind, &fd);
	ASSERT_NE(NULL, mover.other);
	ram_map(_metadata, r, DMA_RW);
	if (!variant->kind.hugetlb) {
		ASSERT_EQ(0, madvise(r->mem, SIZE, MADV_HUGEPAGE));
		ASSERT_EQ(0, madvise(mover.other, SIZE, MADV_HUGEPAGE));
	}
	khugepaged_hurries(true);
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover_main, &mover));

	for (n = 0; n < ROUNDS || __atomic_load_n(&mover.rounds, __ATOMIC_ACQUIRE) < ROUNDS; n++) {
		if (now_us() > deadline || ram_agrees(r, MIDDLE) != 1)
			break;
		if (child_start(&child, r) || child_do(&child, WRITE) != THEIRS ||
		    ram_agrees(r, MIDDLE) != 1 || child_end(&child))
			break;
		if (dma_map(r->p.iommu, IOVA_AGAIN, more, SZ_64K, DMA_RW) ||
		    p2p_agrees(&r->p, IOVA_AGAIN, more) != 1 ||
		    dma_unmap(r->p.iommu, IOVA_AGAIN, SZ_64K) != SZ_64K)
			break;
	}
	EXPECT_LE(ROUNDS, n);
	__atomic_store_n(&mover.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	khugepaged_hurries(false);

	EXPECT_LE(ROUNDS, mover.rounds);
	EXPECT_NE(0, mover.moved);
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

/* What is pinned is charged, once for each mapping, until it is unmapped */
TEST_F_TIMEOUT(ram, mapping_is_charged_while_it_lasts, TIMEOUT)
{
	struct ram *r = &self->r;

	ram_map(_metadata, r, DMA_RW);
	EXPECT_EQ(r->locked + SIZE / SZ_1K, proc_locked_kb());
	EXPECT_EQ(r->avail - 1, dma_avail(r->p.iommu));
	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_AGAIN, r->mem, HALF, DMA_RO));
	EXPECT_EQ(r->locked + (SIZE + HALF) / SZ_1K, proc_locked_kb());

	EXPECT_EQ(-EEXIST, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RW));
	EXPECT_EQ(r->locked + (SIZE + HALF) / SZ_1K, proc_locked_kb());

	/* It is the mapping that counts, not what the process has at that address */
	ASSERT_EQ(0, munmap(r->mem, SIZE));
	EXPECT_EQ(r->locked + (SIZE + HALF) / SZ_1K, proc_locked_kb());

	EXPECT_EQ(HALF, dma_unmap(r->p.iommu, IOVA_AGAIN, HALF));
	EXPECT_EQ(r->locked + SIZE / SZ_1K, proc_locked_kb());
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

/*
 * What a process must not do.  Memory that it discards is from then on the device's alone:
 * it stays what it was, and no part of what the process sees there afterwards.
 */
TEST_F_TIMEOUT(ram, discarded_memory_is_the_devices_alone, TIMEOUT)
{
	struct ram *r = &self->r;
	void *more;

	ram_map(_metadata, r, DMA_RW);
	if (variant->kind.shared) {
		ASSERT_EQ(0, ftruncate(r->fd, 0));
		ASSERT_EQ(0, ftruncate(r->fd, SIZE));
	} else if (madvise(r->mem, SIZE, MADV_DONTNEED)) {
		ASSERT_TRUE(variant->kind.hugetlb);
		SKIP(return, "this kernel does not discard hugetlb pages");
	}

	EXPECT_EQ(0, byte_at(r->mem + MIDDLE));
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, OURS));
	memset(r->mem, THEIRS, SIZE);
	EXPECT_EQ(PAGES, pages_moved(r, 0, PAGES));
	more = ram_alloc(8 * SIZE);
	ASSERT_NE(NULL, more);
	memset(more, OTHERS, 8 * SIZE);
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, OURS));
	EXPECT_EQ(0, p2p_store(&r->p, IOVA_RAM + HALF, 0));
	EXPECT_EQ(THEIRS, byte_at(r->mem + HALF));

	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);

	/* Mapped once more it is in order again */
	ram_map(_metadata, r, DMA_RW);
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
}

/*
 * Memory that the device may read and not write, in any state it may be in then
 */
FIXTURE(readonly) {
	struct ram r;
};

FIXTURE_VARIANT(readonly) {
	struct ram_kind kind;
	bool touched;		/* pages are in place */
	bool forked;		/* and a child has them */
	bool file;		/* they are those of a file, and the process has no copy yet */
	bool read_only;		/* the process itself may not write, for now */
};

FIXTURE_VARIANT_ADD(readonly, untouched) {
	.touched = false,
};

FIXTURE_VARIANT_ADD(readonly, untouched_thp) {
	.kind = { .huge = true },
};

FIXTURE_VARIANT_ADD(readonly, untouched_hugetlb) {
	.kind = { .hugetlb = true },
};

FIXTURE_VARIANT_ADD(readonly, touched) {
	.touched = true,
};

FIXTURE_VARIANT_ADD(readonly, touched_then_protected) {
	.touched = true,
	.read_only = true,
};

FIXTURE_VARIANT_ADD(readonly, untouched_and_protected) {
	.read_only = true,
};

FIXTURE_VARIANT_ADD(readonly, touched_then_forked) {
	.touched = true,
	.forked = true,
};

FIXTURE_VARIANT_ADD(readonly, thp_then_forked) {
	.kind = { .huge = true },
	.touched = true,
	.forked = true,
};

FIXTURE_VARIANT_ADD(readonly, private_file) {
	.file = true,
};

FIXTURE_VARIANT_ADD(readonly, shmem) {
	.kind = { .shared = true },
	.touched = true,
};

FIXTURE_SETUP(readonly)
{
	const struct ram_kind *kind = &variant->kind;
	struct ram *r = &self->r;

	if (!ram_open(_metadata, r))
		SKIP(return, NO_DEVICE);
	if (ram_is_missing(kind))
		SKIP(return, "%s", ram_is_missing(kind));

	if (variant->file) {
		r->mem = ram_reserve(SIZE);
		ASSERT_NE(NULL, r->mem);
		r->fd = memfd_create("vfio_ram_test", MFD_CLOEXEC);
		ASSERT_LE(0, r->fd);
		ASSERT_EQ(0, ftruncate(r->fd, SIZE));
		ASSERT_EQ(r->mem, mmap(r->mem, SIZE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_FIXED, r->fd, 0));
	} else {
		r->mem = ram_of_kind(kind, &r->fd);
		ASSERT_NE(NULL, r->mem);
	}
	if (!variant->touched && !variant->file)
		ASSERT_NE(MAP_FAILED, mmap(r->mem, SIZE, PROT_READ | PROT_WRITE,
					   MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS |
					   (kind->hugetlb ? MAP_HUGETLB : 0), -1, 0));
	if (kind->huge)
		ASSERT_EQ(0, madvise(r->mem, SIZE, MADV_HUGEPAGE));
}

FIXTURE_TEARDOWN(readonly)
{
	ram_close(&self->r);
}

/* A device that only reads sees what the process writes after the mapping was made */
TEST_F_TIMEOUT(readonly, device_sees_later_writes, TIMEOUT)
{
	struct ram *r = &self->r;
	struct child child;

	if (variant->read_only)
		ASSERT_EQ(0, mprotect(r->mem, SIZE, PROT_READ));
	if (variant->forked)
		ASSERT_EQ(0, child_start(&child, r));
	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RO));
	if (variant->read_only)
		ASSERT_EQ(0, mprotect(r->mem, SIZE, PROT_READ | PROT_WRITE));

	EXPECT_EQ(1, p2p_reads(&r->p, IOVA_RAM + MIDDLE, r->mem + MIDDLE));
	if (variant->forked) {
		EXPECT_EQ(THEIRS, child_do(&child, WRITE));
		EXPECT_EQ(1, p2p_reads(&r->p, IOVA_RAM + MIDDLE, r->mem + MIDDLE));
		EXPECT_EQ(0, child_end(&child));
	}
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

/* And cannot write, to the process's memory or to what others share with it */
TEST_F_TIMEOUT(readonly, device_does_not_write, TIMEOUT)
{
	struct ram *r = &self->r;
	u8 before;
	void *file;

	if (variant->read_only)
		ASSERT_EQ(0, mprotect(r->mem, SIZE, PROT_READ));
	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RO));
	before = byte_at(r->mem + MIDDLE);
	EXPECT_EQ(0, p2p_store(&r->p, IOVA_RAM + MIDDLE, 0x5a5a5a5a));
	EXPECT_EQ(before, byte_at(r->mem + MIDDLE));
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, before));

	/* Nor does the mapping give the process's own writes away */
	if (variant->file) {
		file = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, r->fd, 0);
		ASSERT_NE(MAP_FAILED, file);
		memset(r->mem, OTHERS, SIZE);
		EXPECT_EQ(0, byte_at(file + MIDDLE));
	}
	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);

	/* It is not let write what the process may not */
	ASSERT_EQ(0, mprotect(r->mem, SIZE, PROT_READ));
	EXPECT_EQ(-EFAULT, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RW));
	EXPECT_EQ(-EFAULT, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_WO));
	expect_nothing_mapped(_metadata, r);
}

/*
 * What the kernel does with pages of its own accord
 */
FIXTURE(pages) {
	struct ram r;
};

FIXTURE_SETUP(pages)
{
	if (!ram_open(_metadata, &self->r))
		SKIP(return, NO_DEVICE);
}

FIXTURE_TEARDOWN(pages)
{
	ram_close(&self->r);
}

/* Compaction moves the pages all around, and not those */
TEST_F_TIMEOUT(pages, compaction_leaves_it_where_it_is, TIMEOUT)
{
	const size_t size = 192 * SZ_1M, pages = size / SZ_4K;
	u64 *before, *after;
	struct ram *r = &self->r;
	size_t i, moved = 0;
	int tries;
	void *all;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "this kernel has no compaction");

	before = calloc(pages, sizeof(*before));
	after = calloc(pages, sizeof(*after));
	ASSERT_TRUE(before && after);
	all = ram_reserve(size);
	ASSERT_NE(NULL, all);
	ASSERT_EQ(all, mmap(all, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, madvise(all, size, MADV_NOHUGEPAGE));
	memset(all, OURS, size);

	/*
	 * The one in the middle is for DMA, of the others every other page is freed.  That
	 * is more than what is in memory below them, which is moved there first.
	 */
	r->mem = all + size / 2;
	ram_map(_metadata, r, DMA_RW);
	for (i = 0; i < pages; i += 2)
		if (all + i * SZ_4K < r->mem || all + i * SZ_4K >= r->mem + SIZE)
			ASSERT_EQ(0, madvise(all + i * SZ_4K, SZ_4K, MADV_DONTNEED));
	ASSERT_EQ(0, pages_of(all, pages, before));

	for (tries = 0; !moved && tries < 5; tries++) {
		ASSERT_EQ(0, write_text("/proc/sys/vm/compact_memory", "1"));
		for (i = 1; i < pages; i += 2)
			mmio_read32(all + i * SZ_4K);
		ASSERT_EQ(0, pages_of(all, pages, after));
		for (i = 1; i < pages; i += 2)
			moved += before[i] != after[i];
	}
	EXPECT_NE(0, moved);
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	free(before);
	free(after);
}

static int khugepaged_scans(void)
{
	char text[32];

	if (read_text(THP "khugepaged/full_scans", text, sizeof(text)) < 0)
		return -1;

	return atoi(text);
}

/* Small pages are not replaced by a huge one, as they are when not mapped for DMA */
TEST_F_TIMEOUT(pages, khugepaged_leaves_it_as_it_is, TIMEOUT)
{
	u64 deadline = now_us() + 100 * 1000000ULL;
	const struct ram_kind small = { };
	struct ram *r = &self->r;
	int fd, scans;
	void *other;

	if (access(THP "khugepaged", F_OK))
		SKIP(return, "this kernel has no khugepaged");

	r->mem = ram_of_kind(&small, &r->fd);
	ASSERT_NE(NULL, r->mem);
	other = ram_of_kind(&small, &fd);
	ASSERT_NE(NULL, other);
	ram_map(_metadata, r, DMA_RW);
	ASSERT_FALSE(ram_is_huge(r->mem));
	ASSERT_FALSE(ram_is_huge(other));
	ASSERT_EQ(0, madvise(r->mem, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, madvise(other, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, khugepaged_hurries(true));

	/* When it has seen both, and started over again */
	while (!ram_is_huge(other) && now_us() < deadline)
		usleep(10000);
	EXPECT_TRUE(ram_is_huge(other));
	scans = khugepaged_scans();
	while (khugepaged_scans() < scans + 2 && now_us() < deadline)
		usleep(10000);
	EXPECT_LE(scans + 2, khugepaged_scans());
	khugepaged_hurries(false);

	EXPECT_FALSE(ram_is_huge(r->mem));
	EXPECT_EQ(0, pages_moved(r, 0, PAGES));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
}

/* A huge page is mapped in pieces by the process, and may itself not be split */
TEST_F_TIMEOUT(pages, huge_page_is_split, TIMEOUT)
{
	const char *split = "/sys/kernel/debug/split_huge_pages";
	const struct ram_kind huge = { .huge = true };
	struct ram *r = &self->r;
	void *other;
	int fd;

	if (ram_is_missing(&huge))
		SKIP(return, "%s", ram_is_missing(&huge));

	r->mem = ram_of_kind(&huge, &r->fd);
	ASSERT_NE(NULL, r->mem);
	other = ram_of_kind(&huge, &fd);
	ASSERT_NE(NULL, other);
	ASSERT_TRUE(ram_is_huge(r->mem));
	ASSERT_TRUE(ram_is_huge(other));
	ram_map(_metadata, r, DMA_RW);

	/* The page table entry, for a vma of its own in the middle */
	ASSERT_EQ(0, madvise(r->mem + HALF, SZ_4K, MADV_DONTFORK));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	/* Pages of it that the process gives back */
	ASSERT_EQ(0, munmap(r->mem + 8 * SZ_4K, SZ_4K));
	ASSERT_EQ(0, madvise(r->mem + 16 * SZ_4K, SZ_4K, MADV_DONTNEED));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 17, PAGES - 17));

	/* And the page itself */
	if (access(split, W_OK))
		SKIP(return, "this kernel splits no huge pages on request");
	ASSERT_EQ(0, write_text(split, "1"));
	EXPECT_FALSE(ram_is_huge(other));
	EXPECT_TRUE(ram_is_huge(r->mem));
	EXPECT_EQ(1, ram_agrees(r, MIDDLE));
	EXPECT_EQ(0, pages_moved(r, 17, PAGES - 17));

	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	ASSERT_EQ(0, write_text(split, "1"));
	EXPECT_FALSE(ram_is_huge(r->mem));
}

/*
 * What is charged, to whom, and how much may be
 */
FIXTURE(locked) {
	struct ram r;
};

FIXTURE_SETUP(locked)
{
	const struct ram_kind small = { };
	struct ram *r = &self->r;

	if (!ram_open(_metadata, r))
		SKIP(return, NO_DEVICE);

	r->mem = ram_of_kind(&small, &r->fd);
	ASSERT_NE(NULL, r->mem);
}

FIXTURE_TEARDOWN(locked)
{
	ram_close(&self->r);
}

/*
 * What is done in a child returns the number of the step that failed.
 *
 * A limit of half of the memory.  Another user than root has no CAP_IPC_LOCK.
 */
static int limit_to_half(void)
{
	struct rlimit half = { HALF, HALF };

	return setrlimit(RLIMIT_MEMLOCK, &half) || setuid(65534) ? -1 : 0;
}

static int map_up_to_the_limit(struct ram *r)
{
	struct iommu *iommu = r->p.iommu;

	if (limit_to_half())
		return 1;
	if (dma_map(iommu, IOVA_RAM, r->mem, SIZE, DMA_RW) != -ENOMEM)
		return 2;
	if (proc_locked_kb() != 0)
		return 3;
	if (dma_avail(iommu) != r->avail)
		return 4;
	if (dma_map(iommu, IOVA_RAM, r->mem, HALF, DMA_RW))
		return 5;
	if (proc_locked_kb() != HALF / SZ_1K)
		return 6;
	if (dma_map(iommu, IOVA_AGAIN, r->mem, SZ_4K, DMA_RO) != -ENOMEM)
		return 7;
	if (proc_locked_kb() != HALF / SZ_1K)
		return 8;
	if (dma_avail(iommu) != r->avail - 1)
		return 9;
	if (dma_unmap(iommu, IOVA_RAM, HALF) != HALF)
		return 10;
	if (proc_locked_kb() != 0)
		return 11;
	if (dma_map(iommu, IOVA_AGAIN, r->mem, HALF, DMA_RO))
		return 12;
	if (dma_unmap(iommu, IOVA_AGAIN, HALF) != HALF)
		return 13;
	if (proc_locked_kb() != 0)
		return 14;
	return 0;
}

/* A process gets to pin what RLIMIT_MEMLOCK allows, all of it and no more */
TEST_F_TIMEOUT(locked, limit_of_locked_memory, TIMEOUT)
{
	struct ram *r = &self->r;

	EXPECT_EQ(0, in_child(map_up_to_the_limit, r));
	expect_nothing_mapped(_metadata, r);
}

/* Memory that is not there behind memory that is */
TEST_F_TIMEOUT(locked, mapping_that_fails_half_way_is_not_charged, TIMEOUT)
{
	struct ram *r = &self->r;

	ASSERT_EQ(0, munmap(r->mem + HALF, HALF));
	EXPECT_EQ(-EFAULT, dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RW));
	expect_nothing_mapped(_metadata, r);

	/* What is there can be mapped */
	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_RAM, r->mem, HALF, DMA_RW));
	EXPECT_EQ(1, ram_agrees(r, 0));
	EXPECT_EQ(HALF, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

static int unmap_what_is_not_ours(struct ram *r)
{
	if (proc_locked_kb() != 0)
		return 1;
	if (dma_unmap(r->p.iommu, IOVA_RAM, SIZE) != SIZE)
		return 2;
	if (proc_locked_kb() != 0)
		return 3;
	if (dma_avail(r->p.iommu) != r->avail)
		return 4;
	return 0;
}

/* A child owes nothing for its parent's mappings, also if it is who unmaps them */
TEST_F_TIMEOUT(locked, child_unmaps_what_its_parent_mapped, TIMEOUT)
{
	struct ram *r = &self->r;

	ram_map(_metadata, r, DMA_RW);
	EXPECT_EQ(r->locked + SIZE / SZ_1K, proc_locked_kb());
	EXPECT_EQ(0, in_child(unmap_what_is_not_ours, r));
	if (dma_avail(r->p.iommu) != r->avail)
		EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

static int map_and_exit(struct ram *r)
{
	memset(r->mem, THEIRS, SIZE);
	if (dma_map(r->p.iommu, IOVA_RAM, r->mem, SIZE, DMA_RW))
		return 1;
	if (proc_locked_kb() != SIZE / SZ_1K)
		return 2;
	return 0;
}

/* Pages of a process that is no more are the device's, until they are unmapped */
TEST_F_TIMEOUT(locked, mapping_of_a_process_that_exits, TIMEOUT)
{
	struct ram *r = &self->r;
	void *more;

	EXPECT_EQ(0, in_child(map_and_exit, r));
	EXPECT_EQ(r->locked, proc_locked_kb());
	EXPECT_EQ(r->avail - 1, dma_avail(r->p.iommu));

	/* Whatever memory is asked for meanwhile */
	more = ram_alloc(16 * SIZE);
	ASSERT_NE(NULL, more);
	memset(more, OTHERS, 16 * SIZE);
	EXPECT_EQ(1, ram_still_reads(r, 0, THEIRS));
	EXPECT_EQ(1, ram_still_reads(r, MIDDLE, THEIRS));
	EXPECT_EQ(OURS, byte_at(r->mem));

	EXPECT_EQ(SIZE, dma_unmap(r->p.iommu, IOVA_RAM, SIZE));
	expect_nothing_mapped(_metadata, r);
}

/* When the container goes, so does what is charged for its mappings */
TEST_F_TIMEOUT(locked, closing_the_container_uncharges, TIMEOUT)
{
	struct ram *r = &self->r;
	long scratch;

	scratch = r->p.memory.size / SZ_1K;
	ram_map(_metadata, r, DMA_RW);
	ASSERT_EQ(0, dma_map(r->p.iommu, IOVA_AGAIN, r->mem, HALF, DMA_RO));
	EXPECT_EQ(r->locked + (SIZE + HALF) / SZ_1K, proc_locked_kb());
	p2p_close_mapper(&r->p);
	EXPECT_EQ(r->locked - scratch, proc_locked_kb());
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel tells of device memory that is mapped for DMA: trace events, and a
 * file in debugfs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120

#define NO_DEVICES	NEEDS("an edu device and one with memory")
#define NO_CONTAINERS	NEEDS("two edu devices and one with memory")

#define VIEW		"/sys/kernel/debug/vfio/type1_device_memory"
#define INSTANCE	"instances/vfio_trace_test"

/* Lines of text, as the kernel wrote them */
struct lines {
	char text[SZ_1M];
	char *line[SZ_16K];
	int count;
};

static struct lines lines;

static void lines_read(struct __test_metadata *_metadata, struct lines *l, const char *path,
		       size_t chunk)
{
	char *p, *end, *save = NULL;
	size_t len = 0;
	ssize_t n;
	int fd;

	l->count = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	do {
		n = sizeof(l->text) - 1 - len;
		n = read(fd, l->text + len, n < (ssize_t)chunk ? n : (ssize_t)chunk);
		ASSERT_LE(0, n);
		len += n;
	} while (n);
	close(fd);
	ASSERT_GT(sizeof(l->text) - 1, len);

	l->text[len] = '\0';
	for (p = l->text; (end = strtok_r(p, "\n", &save)); p = NULL) {
		ASSERT_GT(ARRAY_SIZE(l->line), l->count);
		l->line[l->count++] = end;
	}
}

/* Line @nr begins with this and ends, or goes on with more fields */
static void expect_line(struct __test_metadata *_metadata, int nr, const char *fmt, ...)
{
	char want[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);

	ASSERT_LT(nr, lines.count)
		TH_LOG("missing: %s", want);
	if (!strncmp(want, lines.line[nr], strlen(want)) && lines.line[nr][strlen(want)] == ' ')
		return;
	EXPECT_STREQ(want, lines.line[nr]);
}

/* Which number a container has is for the kernel to say, once */
static unsigned long long container_of_line(int nr)
{
	const char *p = nr < lines.count ? strstr(lines.line[nr], "container=") : NULL;

	return p ? strtoull(p + strlen("container="), NULL, 0) : 0;
}

/*
 * Trace events, in a buffer of our own
 */
static const char *trace_path(const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/" INSTANCE "/%s", tracing_dir(), file);
	return path;
}

static int trace_start(void)
{
	if (mkdir(trace_path(""), 0700) && errno != EEXIST)
		return -errno;

	/* One order for all processors, without ties */
	write_text(trace_path("trace_clock"), "counter");
	return write_text(trace_path("events/vfio/enable"), "1");
}

static void trace_stop(void)
{
	write_text(trace_path("events/vfio/enable"), "0");
	rmdir(trace_path(""));
}

/* Reads what has been traced and forgets it.  Lines begin with the name of the event. */
static void trace_read(struct __test_metadata *_metadata)
{
	int i, fd, count = 0;
	char *event;

	lines_read(_metadata, &lines, trace_path("trace"), SIZE_MAX / 2);
	for (i = 0; i < lines.count; i++) {
		event = strstr(lines.line[i], ": vfio_");
		if (event)
			lines.line[count++] = event + 2;
	}
	lines.count = count;

	fd = open(trace_path("trace"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	ASSERT_LE(0, fd);
	close(fd);
}

/* Device A, and device B, which is open; D is another one like A, in a container of its own */
FIXTURE(trace) {
	struct p2p p;
	struct iommu *iommu;
	struct vfio_pci_device *d;
	char bdf_d[BDF_LEN];
};

FIXTURE_SETUP(trace)
{
	int ret;

	if (!tracing_dir())
		SKIP(return, "this kernel has no trace events, or they are not mounted");

	ret = p2p_open(&self->p, &want_mem);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	ASSERT_EQ(0, trace_start());
}

FIXTURE_TEARDOWN(trace)
{
	dev_close(&self->d);
	iommu_close(&self->iommu);
	p2p_close(&self->p);
	trace_stop();
}

static int open_d(struct p2p *p, struct vfio_pci_device **d, char *bdf, struct iommu **iommu)
{
	if (pci_find(&want_edu, 1, bdf) < 0)
		return -ENODEV;

	*iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	return dev_open(d, bdf, *iommu);
}

/* A mapping, and the end of it by UNMAP_DMA */
TEST_F_TIMEOUT(trace, map_and_unmap_are_traced, TIMEOUT)
{
	static const struct {
		u32 flags;
		const char *access;
	} kind[] = { { DMA_RW, "rw" }, { DMA_RO, "r" }, { DMA_WO, "w" } };
	unsigned long long container;
	size_t i;
	void *bar;

	bar = p2p_bar(&self->p, SZ_64K, SZ_1M - SZ_64K);
	ASSERT_NE(NULL, bar);
	for (i = 0; i < ARRAY_SIZE(kind); i++) {
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_1M - SZ_64K, kind[i].flags));
		trace_read(_metadata);
		container = container_of_line(0);
		EXPECT_LT(0, container);
		expect_line(_metadata, 0,
			    "vfio_mem_map: container=%llu device=%s iova=0x%lx size=0x%x phys=0x%llx access=%s",
			    container, self->p.bdf_b, IOVA_BAR, SZ_1M - SZ_64K,
			    (unsigned long long)self->p.phys + SZ_64K, kind[i].access);
		EXPECT_EQ(1, lines.count);

		ASSERT_EQ(SZ_1M - SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_1M - SZ_64K));
		trace_read(_metadata);
		expect_line(_metadata, 0,
			    "vfio_mem_unmap: container=%llu device=%s iova=0x%lx size=0x%x",
			    container, self->p.bdf_b, IOVA_BAR, SZ_1M - SZ_64K);
		EXPECT_EQ(1, lines.count);
	}
}

/* The release of the device, for each range of a mapping that has RAM beside them */
TEST_F_TIMEOUT(trace, release_is_traced_for_each_range, TIMEOUT)
{
	unsigned long long container;
	void *area;
	int i;

	/* The BAR at every other of 64 KiB, and of the mapping two pages are left out */
	area = mmap(NULL, 6 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	for (i = 0; i < 3; i++)
		ASSERT_NE(NULL, bar_mmap_at(area + 2 * i * SZ_64K, self->p.b->fd, self->p.bar,
					    PROT_READ | PROT_WRITE, i * SZ_128K, SZ_64K));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area + SZ_4K, 6 * SZ_64K - 2 * SZ_4K,
			     DMA_RW));
	/* It is not the only mapping */
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, area, SZ_64K, DMA_RO));
	trace_read(_metadata);
	EXPECT_EQ(4, lines.count);
	container = container_of_line(0);
	for (i = 0; i < 3; i++)
		expect_line(_metadata, i,
			    "vfio_mem_map: container=%llu device=%s iova=0x%lx size=0x%x phys=0x%llx access=rw",
			    container, self->p.bdf_b,
			    IOVA_BAR + 2 * i * SZ_64K - (i ? SZ_4K : 0), SZ_64K - (i ? 0 : SZ_4K),
			    (unsigned long long)self->p.phys + i * SZ_128K + (i ? 0 : SZ_4K));

	p2p_release(&self->p, area, 6 * SZ_64K);
	trace_read(_metadata);
	EXPECT_EQ(4, lines.count);
	for (i = 0; i < 3; i++)
		expect_line(_metadata, i,
			    "vfio_mem_drop: container=%llu device=%s iova=0x%lx size=0x%x",
			    container, self->p.bdf_b,
			    IOVA_BAR + 2 * i * SZ_64K - (i ? SZ_4K : 0), SZ_64K - (i ? 0 : SZ_4K));
	expect_line(_metadata, 3,
		    "vfio_mem_drop: container=%llu device=%s iova=0x%lx size=0x%x",
		    container, self->p.bdf_b, IOVA_BAR + SZ_1M, SZ_64K);

	/* They have ended, and the mappings are the user's */
	EXPECT_EQ(6 * SZ_64K - 2 * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, 6 * SZ_64K));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR + SZ_1M, SZ_64K));
	trace_read(_metadata);
	EXPECT_EQ(0, lines.count);
}

/* What is of one device ends with that device, and not what is beside it */
TEST_F_TIMEOUT(trace, release_of_one_of_two_devices_is_traced, TIMEOUT)
{
	unsigned long long container;
	char bdf_c[BDF_LEN];
	void *area;
	int index;

	index = pci_find(&want_mem, 1, bdf_c);
	if (index < 0)
		SKIP(return, NEEDS("an edu device and two with memory"));

	ASSERT_EQ(0, dev_open(&self->d, bdf_c, self->p.iommu));
	area = mmap(NULL, 2 * SZ_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(NULL, bar_mmap_at(area, self->p.b->fd, self->p.bar, PROT_READ | PROT_WRITE, 0,
				    SZ_64K));
	ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->d->fd, index, PROT_READ | PROT_WRITE, 0,
				    SZ_64K));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, 2 * SZ_64K, DMA_RW));
	trace_read(_metadata);
	EXPECT_EQ(2, lines.count);
	container = container_of_line(0);

	munmap(area + SZ_64K, SZ_64K);
	dev_close(&self->d);
	trace_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_drop: container=%llu device=%s iova=0x%lx size=0x%x",
		    container, bdf_c, IOVA_BAR + SZ_64K, SZ_64K);

	ASSERT_EQ(2 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 2 * SZ_64K));
	trace_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_unmap: container=%llu device=%s iova=0x%lx size=0x%x",
		    container, self->p.bdf_b, IOVA_BAR, SZ_64K);
}

/* Memory that goes and comes back, for a mapping of the user's that stays */
TEST_F_TIMEOUT(trace, suspension_is_traced, TIMEOUT)
{
	unsigned long long container;
	void *bar;
	int i;

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	/* That is the end of it, for the IOMMU */
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);

	trace_read(_metadata);
	EXPECT_EQ(4, lines.count);
	container = container_of_line(0);
	for (i = 0; i < 4; i++)
		expect_line(_metadata, i,
			    "vfio_mem_%s: container=%llu device=%s iova=0x%lx size=0x%x phys=0x%llx access=rw",
			    i % 2 ? "suspend" : "map", container, self->p.bdf_b, IOVA_BAR, SZ_64K,
			    (unsigned long long)self->p.phys);
}

/*
 * What is mapped under the lock that a release waits for is what one page table holds, for
 * MAP_DMA and for a resume.  A page between IOVA and memory makes all entries small.
 */
TEST_F_TIMEOUT(trace, large_ranges_are_mapped_in_pieces, TIMEOUT)
{
	unsigned long long size, sum;
	const char *p;
	int i, round;
	void *bar;

	if (self->p.size < 2 * SZ_4M)
		SKIP(return, "the memory is too small");

	bar = p2p_bar(&self->p, 0, 2 * SZ_4M);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, write_text(trace_path("events/iommu/map/enable"), "1"));
	for (round = 0; round < 2; round++) {
		if (!round) {
			EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_4K, bar, 2 * SZ_4M,
					     DMA_RW));
		} else {
			vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
			vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		}
		lines_read(_metadata, &lines, trace_path("trace"), SIZE_MAX / 2);
		for (i = 0, sum = 0; i < lines.count; i++) {
			p = strstr(lines.line[i], ": map: IOMMU:");
			p = p ? strstr(p, " size=") : NULL;
			if (!p)
				continue;
			size = strtoull(p + strlen(" size="), NULL, 0);
			EXPECT_GE(SZ_2M, size);
			sum += size;
		}
		EXPECT_EQ(2 * SZ_4M, sum);
		trace_read(_metadata);
	}
	EXPECT_EQ(0, write_text(trace_path("events/iommu/map/enable"), "0"));
	EXPECT_EQ(2 * SZ_4M, dma_unmap(self->p.iommu, IOVA_BAR + SZ_4K, 2 * SZ_4M));
}

/* Containers are told apart; a group that joins or leaves one changes nothing */
TEST_F_TIMEOUT(trace, containers_are_told_apart, TIMEOUT)
{
	unsigned long long container[2];
	void *bar;
	int i;

	if (open_d(&self->p, &self->d, self->bdf_d, &self->iommu))
		SKIP(return, NO_CONTAINERS);

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	trace_read(_metadata);
	EXPECT_EQ(2, lines.count);
	for (i = 0; i < 2; i++)
		container[i] = container_of_line(i);
	EXPECT_LT(0, container[0]);
	EXPECT_LT(container[0], container[1]);

	/* The end of the container is not the release of the device */
	dev_close(&self->d);
	iommu_close(&self->iommu);
	trace_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_unmap: container=%llu device=%s iova=0x%lx size=0x%x",
		    container[1], self->p.bdf_b, IOVA_BAR, SZ_64K);

	/* D may get an IOMMU domain of its own in A's container */
	ASSERT_EQ(0, dev_open(&self->d, self->bdf_d, self->p.iommu));
	dev_close(&self->d);
	trace_read(_metadata);
	EXPECT_EQ(0, lines.count);

	p2p_release(&self->p, bar, SZ_64K);
	trace_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_drop: container=%llu device=%s iova=0x%lx size=0x%x",
		    container[0], self->p.bdf_b, IOVA_BAR, SZ_64K);
}

/* Memory of no vfio device, disabled memory, and a mmap that cannot be written */
TEST_F_TIMEOUT(trace, refusal_is_traced, TIMEOUT)
{
	unsigned long long container;
	void *bar;

	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, self->p.window, SZ_64K, DMA_RW));
	trace_read(_metadata);
	container = container_of_line(0);
	EXPECT_LT(0, container);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_refuse: container=%llu device=- iova=0x%lx size=0x%x vaddr=0x%lx error=%d",
		    container, IOVA_BAR, SZ_64K, (unsigned long)self->p.window, -EFAULT);

	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	trace_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_refuse: container=%llu device=%s iova=0x%lx size=0x%x vaddr=0x%lx error=%d",
		    container, self->p.bdf_b, IOVA_BAR, SZ_64K, (unsigned long)bar, -EFAULT);

	/* What was wanted is told from where it was refused on */
	ASSERT_EQ(0, mprotect(bar + SZ_4K, SZ_4K, PROT_READ));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, bar, SZ_64K, DMA_WO));
	trace_read(_metadata);
	EXPECT_EQ(3, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_map: container=%llu device=%s iova=0x%lx size=0x%x phys=0x%llx access=w",
		    container, self->p.bdf_b, IOVA_BAR, SZ_4K, (unsigned long long)self->p.phys);
	expect_line(_metadata, 1,
		    "vfio_mem_refuse: container=%llu device=%s iova=0x%lx size=0x%x vaddr=0x%lx error=%d",
		    container, self->p.bdf_b, IOVA_BAR + SZ_4K, SZ_64K - SZ_4K,
		    (unsigned long)bar + SZ_4K, -EFAULT);
	expect_line(_metadata, 2,
		    "vfio_mem_unmap: container=%llu device=%s iova=0x%lx size=0x%x",
		    container, self->p.bdf_b, IOVA_BAR, SZ_4K);
}

/* Nothing is said of ordinary memory, nor of requests that are wrong by themselves */
TEST_F_TIMEOUT(trace, other_memory_is_not_traced, TIMEOUT)
{
	void *area;

	area = mmap(NULL, 2 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_EQ(0, munmap(area + SZ_64K, SZ_64K));

	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, SZ_64K, DMA_RW));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, area, SZ_64K, DMA_RW));
	EXPECT_EQ(SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, area, 2 * SZ_64K, DMA_RW));
	EXPECT_EQ(-EINVAL, dma_map(self->p.iommu, IOVA_BAR + 1, area, SZ_64K, DMA_RW));
	trace_read(_metadata);
	EXPECT_EQ(0, lines.count);

	/* But of device memory in front of it, which was mapped for a moment */
	ASSERT_NE(NULL, bar_mmap_at(area, self->p.b->fd, self->p.bar, PROT_READ | PROT_WRITE, 0,
				    SZ_64K));
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR, area, 2 * SZ_64K, DMA_RW));
	trace_read(_metadata);
	EXPECT_EQ(2, lines.count);
	expect_line(_metadata, 0,
		    "vfio_mem_map: container=%llu device=%s iova=0x%lx size=0x%x phys=0x%llx access=rw",
		    container_of_line(0), self->p.bdf_b, IOVA_BAR, SZ_64K,
		    (unsigned long long)self->p.phys);
	expect_line(_metadata, 1,
		    "vfio_mem_unmap: container=%llu device=%s iova=0x%lx size=0x%x",
		    container_of_line(0), self->p.bdf_b, IOVA_BAR, SZ_64K);
}

#define MAPPERS		2
#define SLOTS		16

struct mapper {
	pthread_t thread;
	struct iommu *iommu;
	void *bar;
	u64 iova;		/* Of the first slot */
	bool tidy;		/* Unmaps the rest, too */
	int error;
};

/* Maps and, most of the time, unmaps, until there is nothing to be mapped any more */
static void *map_until_refused(void *arg)
{
	struct mapper *m = arg;
	u64 iova;
	s64 ret;
	int i;

	for (i = 0; ; i++) {
		iova = m->iova + i % SLOTS * SZ_64K;
		ret = dma_map(m->iommu, iova, m->bar, SZ_64K, DMA_RW);
		if (!ret && i % 4)
			ret = dma_unmap(m->iommu, iova, SZ_64K);
		if (ret < 0 && ret != -EEXIST)
			break;
	}
	m->error = ret;
	if (m->tidy)
		dma_unmap(m->iommu, m->iova, SLOTS * SZ_64K);
	return NULL;
}

/* The events of a range have to take turns: it is mapped, and then it is not */
static void expect_turns(struct __test_metadata *_metadata, int *drops)
{
	bool mapped[MAPPERS * SLOTS] = {};
	unsigned long long iova;
	const char *p;
	size_t slot;
	int i;

	for (i = 0; i < lines.count; i++) {
		p = strstr(lines.line[i], "iova=");
		ASSERT_NE(NULL, p);
		iova = strtoull(p + strlen("iova="), NULL, 0);
		slot = (iova - IOVA_BAR) / SZ_64K;
		ASSERT_GT(ARRAY_SIZE(mapped), slot);
		if (!strncmp(lines.line[i], "vfio_mem_map:", 13)) {
			EXPECT_FALSE(mapped[slot])
				TH_LOG("mapped already: %s", lines.line[i]);
			mapped[slot] = true;
			continue;
		}

		EXPECT_TRUE(mapped[slot])
			TH_LOG("not mapped: %s", lines.line[i]);
		mapped[slot] = false;
		if (!strncmp(lines.line[i], "vfio_mem_drop:", 14)) {
			(*drops)++;
			continue;
		}

		EXPECT_EQ(0, strncmp(lines.line[i], "vfio_mem_unmap:", 15))
			TH_LOG("unexpected: %s", lines.line[i]);
	}
	for (slot = 0; slot < ARRAY_SIZE(mapped); slot++) {
		EXPECT_FALSE(mapped[slot])
			TH_LOG("left mapped: slot %zu", slot);
	}
}

/* Each mapping is reported once, and so is its end, whichever comes first */
TEST_F_TIMEOUT(trace, each_map_has_one_end, TIMEOUT)
{
	int i, round, drops = 0, events = 0;
	struct mapper m[MAPPERS];
	void *bar;

	for (round = 0; round < 20; round++) {
		if (!self->p.b)
			ASSERT_EQ(0, p2p_open_peer(&self->p));
		bar = p2p_bar(&self->p, 0, SZ_64K);
		ASSERT_NE(NULL, bar);
		for (i = 0; i < MAPPERS; i++) {
			m[i].iommu = self->p.iommu;
			m[i].bar = bar;
			m[i].iova = IOVA_BAR + i * SLOTS * SZ_64K;
			m[i].tidy = i;
			ASSERT_EQ(0, pthread_create(&m[i].thread, NULL, map_until_refused, &m[i]));
		}
		usleep(2000 + round * 137);

		/* The mmap goes last, but nobody else gets its address */
		dev_close(&self->p.b);
		ASSERT_EQ(bar, mmap(bar, SZ_64K, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		for (i = 0; i < MAPPERS; i++) {
			pthread_join(m[i].thread, NULL);
			EXPECT_EQ(-EFAULT, m[i].error);
		}
		/* What is left of the one that is not tidy has ended */
		EXPECT_LE(0, dma_unmap(self->p.iommu, IOVA_BAR, SLOTS * SZ_64K));
		munmap(bar, SZ_64K);

		trace_read(_metadata);
		events += lines.count;
		expect_turns(_metadata, &drops);
	}
	printf("# %d events, %d of them drops\n", events, drops);
	EXPECT_LT(0, drops);
}

/*
 * The file in debugfs.  Nobody else is supposed to map device memory meanwhile.
 */
FIXTURE(view) {
	struct p2p p;
	struct iommu *iommu;
	struct vfio_pci_device *d;
	char bdf_d[BDF_LEN];
};

FIXTURE_SETUP(view)
{
	int ret;

	ret = p2p_open(&self->p, &want_mem);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	if (access("/sys/kernel/debug/vfio", F_OK))
		SKIP(return, "this kernel has nothing of vfio in debugfs");

	ret = open_d(&self->p, &self->d, self->bdf_d, &self->iommu);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_CONTAINERS);
}

FIXTURE_TEARDOWN(view)
{
	dev_close(&self->d);
	iommu_close(&self->iommu);
	p2p_close(&self->p);
}

static void view_read(struct __test_metadata *_metadata)
{
	lines_read(_metadata, &lines, VIEW, SIZE_MAX / 2);
}

/* Device memory and nothing else, while it is mapped, in every container */
TEST_F_TIMEOUT(view, view_shows_what_is_mapped, TIMEOUT)
{
	unsigned long long container[2];
	void *area;

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	view_read(_metadata);
	EXPECT_EQ(0, lines.count);

	/* 64 KiB each of RAM, the BAR, and RAM */
	area = mmap(NULL, 3 * SZ_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_NE(NULL, bar_mmap_at(area + SZ_64K, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, SZ_64K));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, 3 * SZ_64K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, area + SZ_64K, SZ_4K, DMA_RO));
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, area + SZ_64K + SZ_4K, SZ_4K, DMA_WO));
	view_read(_metadata);
	EXPECT_EQ(3, lines.count);
	container[0] = container_of_line(0);
	container[1] = container_of_line(2);
	EXPECT_LT(0, container[0]);
	EXPECT_LT(container[0], container[1]);
	expect_line(_metadata, 0,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=rw pid=%d state=mapped",
		    container[0], self->p.bdf_b, IOVA_BAR + SZ_64K, SZ_64K, getpid());
	expect_line(_metadata, 1,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=r pid=%d state=mapped",
		    container[0], self->p.bdf_b, IOVA_BAR + SZ_1M, SZ_4K, getpid());
	expect_line(_metadata, 2,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=w pid=%d state=mapped",
		    container[1], self->p.bdf_b, IOVA_BAR, SZ_4K, getpid());

	EXPECT_EQ(SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR + SZ_1M, SZ_4K));
	EXPECT_EQ(-EFAULT, dma_map(self->iommu, IOVA_BAR + SZ_1M, self->p.window, SZ_4K, DMA_RW));
	view_read(_metadata);
	EXPECT_EQ(2, lines.count);
	EXPECT_EQ(container[0], container_of_line(0));
	EXPECT_EQ(container[1], container_of_line(1));

	/* One goes with its container, the other is the user's to unmap */
	dev_close(&self->d);
	iommu_close(&self->iommu);
	view_read(_metadata);
	EXPECT_EQ(1, lines.count);
	EXPECT_EQ(container[0], container_of_line(0));

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	view_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=rw pid=%d state=suspended",
		    container[0], self->p.bdf_b, IOVA_BAR + SZ_64K, SZ_64K, getpid());
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);

	p2p_release(&self->p, area, 3 * SZ_64K);
	view_read(_metadata);
	EXPECT_EQ(1, lines.count);
	expect_line(_metadata, 0,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=rw pid=%d state=dead",
		    container[0], self->p.bdf_b, IOVA_BAR + SZ_64K, SZ_64K, getpid());

	EXPECT_EQ(3 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 3 * SZ_64K));
	view_read(_metadata);
	EXPECT_EQ(0, lines.count);
}

/* More than fits into one read, or into the kernel's first buffer */
TEST_F_TIMEOUT(view, view_shows_thousands_of_ranges, TIMEOUT)
{
	const int count = 2000;
	unsigned long long container;
	void *bar;
	int i;

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, bar);
	for (i = 0; i < count; i++)
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * SZ_4K, bar, SZ_4K, DMA_RW));
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));

	lines_read(_metadata, &lines, VIEW, 1000);
	EXPECT_EQ(count + 1, lines.count);
	container = container_of_line(0);
	for (i = 0; i < count; i++)
		expect_line(_metadata, i,
			    "container=%llu device=%s iova=0x%lx size=0x%x access=rw pid=%d",
			    container, self->p.bdf_b, IOVA_BAR + i * SZ_4K, SZ_4K, getpid());
	container = container_of_line(count);
	expect_line(_metadata, count,
		    "container=%llu device=%s iova=0x%lx size=0x%x access=rw pid=%d",
		    container, self->p.bdf_b, IOVA_BAR, SZ_64K, getpid());
}

/* Threads that read the file until they are told to stop */
struct readers {
	pthread_t thread[2];
	size_t running;
	bool stop;
	const char *bdf;
	unsigned long reads;
	unsigned long seen;
	unsigned long errors;
};

static void *reader(void *arg)
{
	const char *fmt = "container=%*u device=%63s iova=0x%*x size=0x10000 access=rw pid=%*d";
	char line[256], device[64];
	struct readers *r = arg;
	FILE *f;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		f = fopen(VIEW, "re");
		while (f && fgets(line, sizeof(line), f)) {
			__atomic_fetch_add(&r->seen, 1, __ATOMIC_RELAXED);
			if (sscanf(line, fmt, device) != 1 || strcmp(device, r->bdf))
				__atomic_fetch_add(&r->errors, 1, __ATOMIC_RELAXED);
		}
		if (f)
			fclose(f);
		__atomic_fetch_add(f ? &r->reads : &r->errors, 1, __ATOMIC_RELAXED);
	}

	return NULL;
}

/* The file is read while containers and devices come and go */
TEST_F_TIMEOUT(view, view_is_read_while_all_of_it_goes, TIMEOUT)
{
	struct readers r = { .bdf = self->p.bdf_b };
	int i, round, rounds = 60;
	void *bar;

	while (r.running < ARRAY_SIZE(r.thread))
		ASSERT_EQ(0, pthread_create(&r.thread[r.running++], NULL, reader, &r));

	group_patience_ms = 0;
	for (round = 0; round < rounds; round++) {
		if (!self->d)
			ASSERT_EQ(0, open_d(&self->p, &self->d, self->bdf_d, &self->iommu));
		ASSERT_EQ(0, p2p_open_peer_in(&self->p, self->p.iommu));
		if (!round && dev_can_reset(self->p.b))
			rounds = 20;
		bar = p2p_bar(&self->p, 0, SZ_64K);
		ASSERT_NE(NULL, bar);
		for (i = 0; i < 8; i++) {
			ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + i * SZ_64K, bar, SZ_64K,
					     DMA_RW));
			ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR + i * SZ_64K, bar, SZ_64K,
					     DMA_RW));
		}

		/* The mappings first, or a container, or the device */
		if (round % 3 == 0)
			EXPECT_EQ(4 * SZ_64K, dma_unmap(self->iommu, IOVA_BAR, 4 * SZ_64K));
		if (round % 3 == 1) {
			dev_close(&self->d);
			iommu_close(&self->iommu);
		}
		p2p_release(&self->p, bar, SZ_64K);
		EXPECT_EQ(8 * SZ_64K, dma_unmap(self->p.iommu, IOVA_BAR, 8 * SZ_64K));
		if (self->d)
			EXPECT_LT(0, dma_unmap(self->iommu, IOVA_BAR, 8 * SZ_64K));
	}

	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	while (r.running)
		pthread_join(r.thread[--r.running], NULL);
	printf("# read %lu times, %lu ranges seen\n", r.reads, r.seen);
	EXPECT_EQ(0, r.errors);
	EXPECT_LT(0, r.seen);
	view_read(_metadata);
	EXPECT_EQ(0, lines.count);
}

/* Maps memory for a long time, as it is the same small piece of memory again and again */
struct slow_map {
	struct iommu *iommu;
	void *area;
	size_t size;
	u64 took;
};

#define PIECE		SZ_32M
#define LONG_ENOUGH	(2UL * SZ_1G)
#define IOVA_SLOW	0x100000000UL
#define FAILED		UINT64_MAX

static void *slow_map(void *arg)
{
	struct slow_map *s = arg;
	u64 start = now_us();

	if (!dma_map(s->iommu, IOVA_SLOW, s->area, s->size, DMA_RO)) {
		__atomic_store_n(&s->took, now_us() - start, __ATOMIC_RELAXED);
		dma_unmap(s->iommu, IOVA_SLOW, s->size);
	} else {
		__atomic_store_n(&s->took, FAILED, __ATOMIC_RELAXED);
	}
	return NULL;
}

/*
 * A reader does not wait for a container in which somebody is mapping memory, and nobody for
 * the reader: containers end and are made.
 */
TEST_F_TIMEOUT(view, nobody_waits_for_a_reader, TIMEOUT)
{
	struct slow_map s = { .iommu = self->p.iommu };
	const size_t most = 4UL * SZ_1G;
	u64 start, took = 0;
	pthread_t map;
	size_t offset;
	long kb;
	int fd;

	fd = memfd_create("piece", MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PIECE));
	s.area = mmap(NULL, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, s.area);
	for (offset = 0; offset < most; offset += PIECE)
		ASSERT_NE(MAP_FAILED, mmap(s.area + offset, PIECE, PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);

	for (s.size = SZ_512M; s.size <= most; s.size *= 2) {
		s.took = 0;
		kb = proc_locked_kb();
		ASSERT_EQ(0, pthread_create(&map, NULL, slow_map, &s));
		/* Once something is charged it has the lock */
		while (proc_locked_kb() == kb && !__atomic_load_n(&s.took, __ATOMIC_RELAXED))
			usleep(1000);

		start = now_us();
		view_read(_metadata);
		dev_close(&self->d);
		iommu_close(&self->iommu);
		ASSERT_EQ(0, open_d(&self->p, &self->d, self->bdf_d, &self->iommu));
		took = now_us() - start;
		if (!__atomic_load_n(&s.took, __ATOMIC_RELAXED))
			break;

		/* Was that too quick, or did we wait? */
		pthread_join(map, NULL);
		ASSERT_NE(FAILED, s.took);
		if (s.size < LONG_ENOUGH)
			continue;
		start = now_us();
		view_read(_metadata);
		dev_close(&self->d);
		iommu_close(&self->iommu);
		ASSERT_EQ(0, open_d(&self->p, &self->d, self->bdf_d, &self->iommu));
		ASSERT_GT(3 * (now_us() - start), s.took);
	}
	if (s.size > most)
		SKIP(return, "memory is mapped too fast");

	pthread_join(map, NULL);
	printf("# %llu ms in the middle of %llu\n", (unsigned long long)took / 1000,
	       (unsigned long long)s.took / 1000);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}

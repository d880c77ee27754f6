// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what device memory costs: to map it for DMA and to unmap it, to take it
 * away from DMA when its device is closed, to take it away and give it back when its
 * memory is disabled and enabled, and to fault it in.  The module iommu_floor, if it
 * was copied beside this program, tells what the IOMMU alone costs.
 *
 * A line a figure: a name, a tab, a value.  The name is "benchmark.case.x", the
 * value is in ticks of the CPU's counter unless the benchmark says something else.
 * In QEMU with -icount shift=0 a tick is an instruction.  It judges nothing, so it
 * runs on any kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
#include <linux/iommufd.h>
#include <libvfio/dma_buf.h>
#endif

#include <libvfio/memory.h>
#include <libvfio/p2p.h>
#include "iommu_floor/iommu_floor.h"

#define IOVA_BASE	(64ULL * SZ_1G)

#define ENOUGH		400000000ULL	/* ticks, after which nothing is repeated */
#define TOO_MUCH	1000000000ULL	/* and after which nothing larger is measured */
#define REPEAT		7

static const struct pci_want want_display = { .kind = { { 0x12341111, 0 } } };

static int floor_fd = -1;

static u64 ticks(void)
{
#ifdef __x86_64__
	u32 lo, hi;

	asm volatile("lfence; rdtsc; lfence" : "=a" (lo), "=d" (hi) : : "memory");
	return (u64)hi << 32 | lo;
#else
	return now_us() * 1000;
#endif
}

static void figure(const char *bench, const char *kind, u64 x, u64 value)
{
	printf("%s.%s.%llu\t%llu\n", bench, kind, (unsigned long long)x,
	       (unsigned long long)value);
	fflush(stdout);
}

/* The process ends with a message, but the other benchmarks go on */
#define need(cond)	VFIO_ASSERT_TRUE(!!(cond))

/* The least of some values: the others were interrupted */
struct least {
	u64 value;
	u64 sum;
	unsigned int count;
};

static void least_add(struct least *l, u64 value)
{
	if (!l->count || value < l->value)
		l->value = value;
	l->sum += value;
	l->count++;
}

static bool least_done(const struct least *l)
{
	return l->count >= REPEAT || l->sum > ENOUGH;
}

/*
 * Device A, in whose domain memory is mapped, and B, whose memory it is
 */
struct setup {
	struct iommu *iommu;
	struct vfio_pci_device *a;
	struct vfio_pci_device *b;
	char bdf_a[BDF_LEN];
	char bdf_b[BDF_LEN];
	int bar;
	u64 phys;
	u64 size;
};

static void find_both(struct setup *s, const struct pci_want *want_b)
{
	need(pci_find(&want_edu, 0, s->bdf_a) >= 0);
	s->bar = pci_find(want_b, 0, s->bdf_b);
	need(s->bar >= 0);
	need(!pci_bar(s->bdf_b, s->bar, &s->phys, &s->size));
}

static void open_a(struct setup *s, const struct pci_want *want_b)
{
	find_both(s, want_b);
	s->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	need(!dev_open(&s->a, s->bdf_a, s->iommu));
}

static void open_b(struct setup *s)
{
	need(!dev_open(&s->b, s->bdf_b, s->iommu));
	vfio_pci_cmd_set(s->b, PCI_COMMAND_MEMORY);
}

/* The largest memory of a device that there is */
static struct pci_want want_large(void)
{
	struct pci_want want = want_mem;
	char bdf[BDF_LEN];

	for (want.min_size = 1ULL << 40; want.min_size > SZ_1M; want.min_size /= 2)
		if (pci_find(&want, 0, bdf) >= 0)
			break;
	return want;
}

static void open_large(struct setup *s)
{
	struct pci_want want = want_large();

	open_a(s, &want);
	open_b(s);
}

/* A display has no reset, so closing it takes no longer than it has to */
static void open_display(struct setup *s)
{
	open_a(s, &want_display);
	open_b(s);
}

static void close_both(struct setup *s)
{
	dev_close(&s->b);
	dev_close(&s->a);
	iommu_close(&s->iommu);
}

/*
 * Address space for @size bytes that start @shift behind a multiple of 1 GiB; gives
 * the start of it all, to be unmapped
 */
struct area {
	void *start;
	size_t len;
	void *addr;
};

static void area_get(struct area *area, size_t size, size_t shift)
{
	area->len = size + shift + SZ_1G;
	area->start = mmap(NULL, area->len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	need(area->start != MAP_FAILED);
	area->addr = (void *)(((uintptr_t)area->start + SZ_1G - 1) & ~(SZ_1G - 1)) + shift;
}

static void area_put(struct area *area)
{
	munmap(area->start, area->len);
}

static void *map_bar(struct setup *s, struct area *area, size_t size, size_t shift,
		     size_t offset)
{
	void *bar;

	area_get(area, size, shift);
	bar = bar_mmap_at(area->addr, s->b->fd, s->bar, PROT_READ | PROT_WRITE, offset, size);
	need(bar);
	return bar;
}

/* Ranges that are mapped and unmapped by nothing but the IOMMU's driver */
static void measure_floors(struct setup *s, struct iommu_floor floor, struct least *map,
			   struct least *unmap)
{
	unsigned int domain, bus, dev, fn;
	int fields;

	if (floor_fd < 0)
		return;
	fields = sscanf(s->bdf_a, "%x:%x:%x.%x", &domain, &bus, &dev, &fn);
	need(fields == 4);
	floor.domain = domain;
	floor.bus = bus;
	floor.devfn = dev << 3 | fn;

	do {
		need(!ioctl(floor_fd, IOMMU_FLOOR_MEASURE, &floor));
		least_add(map, floor.map);
		least_add(unmap, floor.unmap);
	} while (!least_done(map) || !least_done(unmap));
}

static void measure_floor(struct setup *s, u64 iova, u64 phys, u64 size,
			  struct least *map, struct least *unmap)
{
	struct iommu_floor floor = {
		.iova = iova, .phys = phys, .size = size, .span = size, .count = 1,
	};

	measure_floors(s, floor, map, unmap);
}

static void print_floor(const char *kind, u64 x, struct least *map, struct least *unmap)
{
	if (!map->count)
		return;
	figure("map_floor", kind, x, map->value);
	figure("unmap_floor", kind, x, unmap->value);
}

/* MAP_DMA and UNMAP_DMA of one stretch of a BAR, by size and by alignment */
static void bench_map(void)
{
	static const struct {
		const char *name;
		size_t vaddr;
		size_t iova;
		size_t offset;
	} kinds[] = {
		{ "aligned", 0, 0, 0 },
		{ "vaddr", SZ_4K, 0, 0 },
		{ "iova", 0, SZ_4K, 0 },
		{ "offset", SZ_4K, SZ_4K, SZ_4K },
	};
	struct setup s;
	u64 size;
	size_t i;

	open_large(&s);
	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		for (size = SZ_1M; size <= s.size; size *= 4) {
			struct least map = {}, unmap = {}, floor_map = {}, floor_unmap = {};
			u64 iova = IOVA_BASE + kinds[i].iova;
			size_t len = size - kinds[i].offset;
			u64 start, mapped, end;
			struct area area;
			long before, tables;
			void *bar;

			do {
				bar = map_bar(&s, &area, len, kinds[i].vaddr, kinds[i].offset);
				before = proc_page_tables_kb();
				start = ticks();
				need(!dma_map(s.iommu, iova, bar, len, DMA_RW));
				mapped = ticks();
				tables = proc_page_tables_kb() - before;
				least_add(&map, mapped - start);
				start = ticks();
				need(dma_unmap(s.iommu, iova, len) == (s64)len);
				end = ticks();
				least_add(&unmap, end - start);
				area_put(&area);
			} while (!least_done(&map) || !least_done(&unmap));

			measure_floor(&s, iova, s.phys + kinds[i].offset, len, &floor_map,
				      &floor_unmap);
			figure("map", kinds[i].name, size, map.value);
			figure("unmap", kinds[i].name, size, unmap.value);
			figure("page_tables_kb", kinds[i].name, size, tables);
			print_floor(kinds[i].name, size, &floor_map, &floor_unmap);
			if (map.value > TOO_MUCH || unmap.value > TOO_MUCH)
				break;
		}
	}
	close_both(&s);
}

#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
/* The same BAR as a dma-buf, mapped by iommufd */
static void bench_dmabuf(void)
{
	static const struct {
		const char *name;
		size_t iova;
	} kinds[] = {
		{ "aligned", 0 }, { "iova", SZ_4K },
	};
	struct pci_want want = want_large();
	const char *missing;
	struct setup s;
	u64 size;
	size_t i;

	find_both(&s, &want);
	need(!dev_prepare(s.bdf_a) && !dev_prepare(s.bdf_b));
	missing = mode_is_missing(MODE_IOMMUFD, s.bdf_b);
	if (missing) {
		fprintf(stderr, "dmabuf: %s\n", missing);
		return;
	}
	s.iommu = iommu_init(MODE_IOMMUFD);
	s.a = vfio_pci_device_init(s.bdf_a, s.iommu);
	/* libvfio would map its BARs, and cannot if they are very large */
	s.b = dev_alloc(s.bdf_b, s.iommu);
	vfio_pci_cdev_open(s.b, s.bdf_b);
	need(!__vfio_device_bind_iommufd(s.b->fd, s.iommu->iommufd, NULL));
	need(!region_info(s.b->fd, VFIO_PCI_CONFIG_REGION_INDEX, &s.b->config_space));
	vfio_pci_cmd_set(s.b, PCI_COMMAND_MEMORY);
	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		for (size = SZ_1M; size <= s.size; size *= 4) {
			struct iommu_ioas_map_file map_file = {
				.size = sizeof(map_file),
				.flags = IOMMU_IOAS_MAP_FIXED_IOVA |
					 IOMMU_IOAS_MAP_READABLE |
					 IOMMU_IOAS_MAP_WRITEABLE,
				.ioas_id = s.iommu->ioas_id,
				.length = size,
				.iova = IOVA_BASE + kinds[i].iova,
			};
			struct iommu_ioas_unmap ioas_unmap;
			struct least map = {}, unmap = {};
			u64 start;

			map_file.fd = dev_dmabuf_export(s.b, s.bar, size);
			if (map_file.fd < 0)
				break;
			do {
				start = ticks();
				need(!ioctl(s.iommu->iommufd, IOMMU_IOAS_MAP_FILE, &map_file));
				least_add(&map, ticks() - start);
				/* It comes back with what was unmapped */
				ioas_unmap = (struct iommu_ioas_unmap){
					.size = sizeof(ioas_unmap),
					.ioas_id = s.iommu->ioas_id,
					.iova = map_file.iova,
					.length = size,
				};
				start = ticks();
				need(!ioctl(s.iommu->iommufd, IOMMU_IOAS_UNMAP, &ioas_unmap));
				least_add(&unmap, ticks() - start);
			} while (!least_done(&map) || !least_done(&unmap));
			close(map_file.fd);
			figure("dmabuf_map", kinds[i].name, size, map.value);
			figure("dmabuf_unmap", kinds[i].name, size, unmap.value);
			if (map.value > TOO_MUCH || unmap.value > TOO_MUCH)
				break;
		}
	}
	dev_close(&s.b);
	vfio_pci_device_cleanup(s.a);
	iommu_cleanup(s.iommu);
}
#else
static void bench_dmabuf(void)
{
}
#endif

/* One page, where nothing counts but what a call costs */
static void bench_page(void)
{
	struct least map = {}, unmap = {}, null = {};
	struct area area;
	u64 start;
	struct setup s;
	void *mem;

	open_display(&s);
	do {
		start = ticks();
		ioctl(s.iommu->container_fd, VFIO_GET_API_VERSION);
		least_add(&null, ticks() - start);
	} while (!least_done(&null));
	figure("ioctl", "none", 1, null.value);

	mem = map_bar(&s, &area, SZ_4K, 0, 0);
	do {
		start = ticks();
		need(!dma_map(s.iommu, IOVA_BASE, mem, SZ_4K, DMA_RW));
		least_add(&map, ticks() - start);
		start = ticks();
		need(dma_unmap(s.iommu, IOVA_BASE, SZ_4K) == SZ_4K);
		least_add(&unmap, ticks() - start);
	} while (!least_done(&map));
	figure("map", "page", SZ_4K, map.value);
	figure("unmap", "page", SZ_4K, unmap.value);
	area_put(&area);

	memset(&map, 0, sizeof(map));
	memset(&unmap, 0, sizeof(unmap));
	measure_floor(&s, IOVA_BASE, s.phys, SZ_4K, &map, &unmap);
	print_floor("page", SZ_4K, &map, &unmap);
	close_both(&s);
}

/* How many stretches of contiguous memory it is; what mapping it costs depends on it */
static u64 count_runs(void *mem, size_t size)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	u64 entry, last = 0, runs = 0;
	size_t i;

	need(fd >= 0);
	for (i = 0; i < size / SZ_4K; i++) {
		need(pread(fd, &entry, sizeof(entry), ((uintptr_t)mem / SZ_4K + i) * 8) == 8);
		entry &= (1ULL << 55) - 1;
		if (entry != last + 1)
			runs++;
		last = entry;
	}
	close(fd);

	return runs;
}

static void measure_ram(struct setup *s, const char *kind, void *mem, size_t size)
{
	struct least map = {}, unmap = {};
	u64 start;

	do {
		start = ticks();
		need(!dma_map(s->iommu, IOVA_BASE, mem, size, DMA_RW));
		least_add(&map, ticks() - start);
		start = ticks();
		need(dma_unmap(s->iommu, IOVA_BASE, size) == (s64)size);
		least_add(&unmap, ticks() - start);
	} while (!least_done(&map));
	figure("ram_map", kind, size, map.value);
	figure("ram_unmap", kind, size, unmap.value);
	figure("ram_runs", kind, size, count_runs(mem, size));
}

/* Ordinary memory: a page, huge pages, small ones, and such as never adjoin */
static void bench_ram(void)
{
	size_t size = 64 * SZ_1M, i;
	struct area area;
	struct setup s;
	void *mem;
	int fd;

	open_display(&s);

	mem = ram_alloc(SZ_4K);
	need(mem);
	measure_ram(&s, "page", mem, SZ_4K);

	area_get(&area, size, 0);
	mem = mmap(area.addr, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	need(mem != MAP_FAILED);
	need(!madvise(mem, size, MADV_HUGEPAGE));
	memset(mem, 1, size);
	measure_ram(&s, "huge", mem, size);

	/* The very same, mapped by pages: what of it adjoins does not depend on luck */
	for (i = 0; i < size; i += SZ_2M) {
		need(!mprotect(mem + i, SZ_4K, PROT_READ));
		need(!mprotect(mem + i, SZ_4K, PROT_READ | PROT_WRITE));
	}
	measure_ram(&s, "small", mem, size);
	area_put(&area);

	size = SZ_16M;
	fd = syscall(SYS_memfd_create, "bench", 0);
	need(fd >= 0 && !ftruncate(fd, 2 * size));
	mem = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	need(mem != MAP_FAILED);
	munmap(mem, 2 * size);
	area_get(&area, size, 0);
	for (i = 0; i < size; i += SZ_4K) {
		mem = mmap(area.addr + i, SZ_4K, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 2 * i);
		need(mem != MAP_FAILED);
		mmio_write32(mem, 1);
	}
	measure_ram(&s, "scattered", area.addr, size);
	area_put(&area);
	close(fd);

	close_both(&s);
}

/* One mapping over many vmas, of which no two adjoin in the BAR */
static void bench_vmas(void)
{
	unsigned int count, i;
	struct area area;
	struct setup s;
	u64 start;

	open_display(&s);
	for (count = 1; count <= 4096 && count * SZ_4K <= s.size; count *= 4) {
		size_t len = count * SZ_4K;
		struct least map = {}, unmap = {};

		do {
			area_get(&area, len, 0);
			for (i = 0; i < count; i++)
				need(bar_mmap_at(area.addr + i * SZ_4K, s.b->fd, s.bar,
						 PROT_READ | PROT_WRITE,
						 (count - 1 - i) * SZ_4K, SZ_4K));
			start = ticks();
			need(!dma_map(s.iommu, IOVA_BASE, area.addr, len, DMA_RW));
			least_add(&map, ticks() - start);
			start = ticks();
			need(dma_unmap(s.iommu, IOVA_BASE, len) == (s64)len);
			least_add(&unmap, ticks() - start);
			area_put(&area);
		} while (!least_done(&map));
		figure("map", "vmas", count, map.value);
		figure("unmap", "vmas", count, unmap.value);
	}
	close_both(&s);
}

/* @count mappings of a page each, in steps of two, of memory that repeats */
static void map_many(struct setup *s, u64 iova, void *mem, size_t size,
		     unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		void *page = mem + i * SZ_4K % size;

		need(!dma_map(s->iommu, iova + i * 2 * SZ_4K, page, SZ_4K, DMA_RW));
	}
}

/* Many mappings: to unmap each, and to close the device instead */
static void bench_release(void)
{
	static const unsigned int counts[] = {
		0, 1, 10, 100, 1000, 3750, 7500, 15000, 30000, 60000
	};
	unsigned int n, count;
	struct area area;
	u64 start;
	struct setup s;
	void *bar;
	size_t i;

	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		struct least release = {};

		count = counts[i];
		do {
			open_display(&s);
			bar = map_bar(&s, &area, SZ_1M, 0, 0);
			if (count && !release.count) {
				start = ticks();
				map_many(&s, IOVA_BASE, bar, SZ_1M, count);
				figure("map", "each", count, ticks() - start);
				start = ticks();
				for (n = 0; n < count; n++)
					need(dma_unmap(s.iommu, IOVA_BASE + n * 2 * SZ_4K,
						       SZ_4K) == SZ_4K);
				figure("unmap", "each", count, ticks() - start);
			}
			map_many(&s, IOVA_BASE, bar, SZ_1M, count);
			area_put(&area);
			start = ticks();
			dev_close_fd(s.b);
			least_add(&release, ticks() - start);
			close_both(&s);
		} while (release.count < 3 && count <= 1000);
		figure("release", "close", count, release.value);
	}
}

static u64 write_memory_enable(struct vfio_pci_device *dev, bool on)
{
	u16 cmd = vfio_pci_config_readw(dev, PCI_COMMAND) & ~PCI_COMMAND_MEMORY;
	u64 start = ticks();

	vfio_pci_config_writew(dev, PCI_COMMAND, cmd | (on ? PCI_COMMAND_MEMORY : 0));
	return ticks() - start;
}

/*
 * Many mappings of a device whose memory is disabled and enabled again.  The floor is
 * that of a release as well
 */
static void bench_suspend(void)
{
	static const unsigned int counts[] = { 0, 1, 10, 100, 1000, 15000, 60000 };
	struct least suspend, resume, map, unmap;
	struct area area;
	struct setup s;
	void *bar;
	size_t i;

	open_display(&s);
	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		struct iommu_floor floor = {
			.iova = IOVA_BASE, .phys = s.phys, .size = SZ_4K,
			.step = 2 * SZ_4K, .span = SZ_1M, .count = counts[i],
		};

		memset(&suspend, 0, sizeof(suspend));
		memset(&resume, 0, sizeof(resume));
		memset(&map, 0, sizeof(map));
		memset(&unmap, 0, sizeof(unmap));
		if (counts[i])
			measure_floors(&s, floor, &map, &unmap);
		print_floor("ranges", counts[i], &map, &unmap);

		bar = map_bar(&s, &area, SZ_1M, 0, 0);
		map_many(&s, IOVA_BASE, bar, SZ_1M, counts[i]);
		area_put(&area);
		do {
			least_add(&suspend, write_memory_enable(s.b, false));
			least_add(&resume, write_memory_enable(s.b, true));
		} while (!least_done(&suspend) || !least_done(&resume));
		figure("suspend", "ranges", counts[i], suspend.value);
		figure("resume", "ranges", counts[i], resume.value);
		if (counts[i])
			need(dma_unmap(s.iommu, IOVA_BASE, counts[i] * 2 * SZ_4K) ==
			     counts[i] * SZ_4K);
	}
	close_both(&s);
}

/* A device with 100 mappings is closed; the container has others, of RAM */
static void bench_others(void)
{
	static const unsigned int counts[] = { 0, 100, 1000, 10000, 60000 };
	struct area area;
	u64 start;
	struct setup s;
	void *bar, *ram;
	size_t i;

	ram = ram_alloc(SZ_1M);
	need(ram);
	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		open_display(&s);
		map_many(&s, 2 * IOVA_BASE, ram, SZ_1M, counts[i]);
		bar = map_bar(&s, &area, SZ_1M, 0, 0);
		map_many(&s, IOVA_BASE, bar, SZ_1M, 100);
		area_put(&area);
		start = ticks();
		dev_close_fd(s.b);
		figure("release", "others", counts[i], ticks() - start);
		close_both(&s);
	}
}

/*
 * A BAR that many processes have mapped is disabled
 */
#define PROCESSES	64
#define VMA_SIZE	(4 * SZ_4K)

static void child_maps(struct setup *s, unsigned int vmas, int ready, int go)
{
	unsigned int i;
	char c = 0;

	die_with_parent();
	for (i = 0; i < vmas; i++) {
		void *bar = bar_mmap(s->b->fd, s->bar, PROT_READ, i * VMA_SIZE % s->size,
				     VMA_SIZE);

		if (!bar)
			_exit(1);
		mmio_read32(bar);
	}
	if (write(ready, &c, 1) != 1 || read(go, &c, 1) < 0)
		_exit(1);
	_exit(0);
}

static u64 measure_disable(struct setup *s, unsigned int vmas)
{
	unsigned int i, children = vmas < PROCESSES ? vmas : PROCESSES;
	int ready[2], go[2], status;
	u64 value;
	char c;

	need(!pipe(ready) && !pipe(go));
	for (i = 0; i < children; i++) {
		pid_t pid = fork();

		need(pid >= 0);
		if (!pid) {
			close(go[1]);
			child_maps(s, vmas / children, ready[1], go[0]);
		}
	}
	for (i = 0; i < children; i++)
		need(read(ready[0], &c, 1) == 1);
	value = write_memory_enable(s->b, false);
	vfio_pci_cmd_set(s->b, PCI_COMMAND_MEMORY);
	close(go[1]);
	for (i = 0; i < children; i++)
		need(wait(&status) > 0 && !status);
	close(ready[0]);
	close(ready[1]);
	close(go[0]);

	return value;
}

static void bench_disable(void)
{
	unsigned int vmas;
	struct setup s;

	open_display(&s);
	for (vmas = 1; vmas <= 4096; vmas *= 4) {
		struct least disable = {};

		do {
			least_add(&disable, measure_disable(&s, vmas));
		} while (disable.count < 3);
		figure("disable", "vmas", vmas, disable.value);
	}
	close_both(&s);
}

/*
 * Faults
 */
static u64 touch(void *mem, size_t size, size_t step)
{
	u64 start = ticks();
	size_t i;

	for (i = 0; i < size; i += step)
		mmio_read32(mem + i);
	return ticks() - start;
}

static void bench_fault(void)
{
	static const struct {
		const char *name;
		size_t step;
	} kinds[] = {
		{ "first", -1UL / 4 }, { "sparse", SZ_2M }, { "all", SZ_4K },
	};
	static const size_t sizes[] = { SZ_4K, SZ_64K, SZ_2M, 64 * SZ_1M, SZ_1G };
	struct area area;
	struct setup s;
	size_t i, j;
	void *bar;

	open_large(&s);
	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		for (j = 0; j < sizeof(sizes) / sizeof(*sizes); j++) {
			struct least fault = {};

			if (sizes[j] > s.size)
				continue;
			do {
				bar = map_bar(&s, &area, sizes[j], 0, 0);
				least_add(&fault, touch(bar, sizes[j], kinds[i].step));
				area_put(&area);
				/* Let it not be always the same one that finds no page at hand */
				need(ram_alloc(SZ_4K));
			} while (!least_done(&fault));
			figure("fault", kinds[i].name, sizes[j], fault.value);
		}
	}
	close_both(&s);
}

#define THREADS		8

static struct {
	pthread_barrier_t barrier;
	unsigned int count;
	void *bar;
	size_t size;
	size_t step;
	bool same;
} crowd;

static void *crowd_thread(void *arg)
{
	size_t size = crowd.size, n = (uintptr_t)arg;
	void *bar = crowd.bar;

	if (!crowd.same) {
		size /= crowd.count;
		bar += n * size;
	}
	pthread_barrier_wait(&crowd.barrier);
	touch(bar, size, crowd.step);
	pthread_barrier_wait(&crowd.barrier);
	return NULL;
}

/* All of them together, from the moment they start to the one the last is through */
static u64 measure_crowd(struct setup *s, unsigned int count, size_t size, bool same)
{
	pthread_t thread[THREADS];
	struct area area;
	u64 start;
	uintptr_t i;

	crowd.bar = map_bar(s, &area, size, 0, 0);
	crowd.count = count;
	crowd.size = size;
	crowd.step = SZ_4K;
	crowd.same = same;
	need(!pthread_barrier_init(&crowd.barrier, NULL, count + 1));
	for (i = 0; i < count; i++)
		need(!pthread_create(&thread[i], NULL, crowd_thread, (void *)i));
	/* Until they are all at the barrier */
	usleep(20000);
	start = ticks();
	pthread_barrier_wait(&crowd.barrier);
	pthread_barrier_wait(&crowd.barrier);
	start = ticks() - start;
	for (i = 0; i < count; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&crowd.barrier);
	area_put(&area);

	return start;
}

static void bench_threads(void)
{
	unsigned int count;
	struct setup s;

	open_large(&s);
	for (count = 1; count <= THREADS; count++) {
		struct least apart = {}, same = {};

		do {
			least_add(&apart, measure_crowd(&s, count, 64 * SZ_1M, false));
			least_add(&same, measure_crowd(&s, count, SZ_2M, true));
		} while (!least_done(&apart));
		figure("fault", "threads", count, apart.value);
		figure("fault", "same", count, same.value);
	}
	close_both(&s);
}

/*
 * Memory, as the kernel's tracepoints tell: what is allocated and not freed again
 */
struct object {
	unsigned long long ptr;
	unsigned long size;
};

static struct object objects[65536];
static size_t objects_count;

static void object_line(const char *line)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	unsigned long long ptr;
	unsigned long size;
	const char *p, *q;
	size_t i;

	p = strstr(line, " ptr=");
	if (!p || sscanf(p, " ptr=%llx", &ptr) != 1)
		return;

	if (strstr(line, "free")) {
		for (i = objects_count; i-- > 0;) {
			if (objects[i].ptr != ptr)
				continue;
			objects[i] = objects[--objects_count];
			break;
		}
		return;
	}

	q = strstr(line, " bytes_alloc=");
	if (strstr(line, "percpu_alloc_percpu")) {
		q = strstr(line, " size=");
		if (!q || sscanf(q, " size=%lu", &size) != 1)
			return;
		size *= cpus;
	} else if (!q || sscanf(q, " bytes_alloc=%lu", &size) != 1) {
		return;
	}
	if (objects_count < sizeof(objects) / sizeof(*objects))
		objects[objects_count++] = (struct object){ .ptr = ptr, .size = size };
}

static const char *trace_path(const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", tracing_dir(), file);
	return path;
}

static void trace_start(void)
{
	static const char *const events[] = {
		"kmem/kmalloc", "kmem/kmalloc_node", "kmem/kmem_cache_alloc",
		"kmem/kmem_cache_alloc_node", "kmem/kfree", "kmem/kmem_cache_free",
		"percpu/percpu_alloc_percpu", "percpu/percpu_free_percpu",
	};
	char event[128];
	size_t i;
	int fd;

	write_text(trace_path("buffer_size_kb"), "16384");
	/* Hashed, pointers are all the same as long as there is too little entropy */
	write_text(trace_path("options/hash-ptr"), "0");
	for (i = 0; i < sizeof(events) / sizeof(*events); i++) {
		/* Newer kernels have fewer of them */
		snprintf(event, sizeof(event), "events/%s/enable", events[i]);
		write_text(trace_path(event), "1");
	}
	/* That alone empties it */
	fd = open(trace_path("trace"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	need(fd >= 0);
	close(fd);
	need(!write_text(trace_path("tracing_on"), "1"));
}

/* Bytes since the start, once what is freed late has been */
static u64 trace_stop(void)
{
	u64 sum = 0;
	char line[1024];
	size_t i;
	FILE *f;

	usleep(200000);
	write_text(trace_path("tracing_on"), "0");
	f = fopen(trace_path("trace"), "re");
	need(f);
	objects_count = 0;
	while (fgets(line, sizeof(line), f))
		if (line[0] != '#')
			object_line(line);
	fclose(f);
	for (i = 0; i < objects_count; i++)
		sum += objects[i].size;

	need(sum);
	return sum;
}

static void bench_memory(void)
{
	const unsigned int count = 1000;
	struct setup s;
	struct area area;
	void *bar, *ram;

	if (!tracing_dir() || access(trace_path("events/kmem"), F_OK))
		return;

	open_a(&s, &want_display);
	if (pci_bound_to_vfio(s.bdf_b))
		need(!pci_unbind(s.bdf_b));

	trace_start();
	need(!pci_bind_vfio(s.bdf_b));
	figure("bytes", "bind", 1, trace_stop());

	trace_start();
	open_b(&s);
	figure("bytes", "open", 1, trace_stop());

	bar = map_bar(&s, &area, SZ_1M, 0, 0);
	ram = ram_alloc(SZ_1M);
	/* Page tables of the IOMMU are not counted; these are in place, then */
	trace_start();
	need(!dma_map(s.iommu, IOVA_BASE - SZ_1M, bar, SZ_4K, DMA_RW));
	figure("bytes", "first", 1, trace_stop());

	trace_start();
	map_many(&s, IOVA_BASE, bar, SZ_1M, count);
	figure("bytes", "mappings", count, trace_stop());

	trace_start();
	map_many(&s, 2 * IOVA_BASE, ram, SZ_1M, count);
	figure("bytes", "ram_mappings", count, trace_stop());
	area_put(&area);
	close_both(&s);
}

/*
 * How often the IOMMU's driver is asked to flush, as the function tracer tells
 */
#define SYNC_FUNCTION	"intel_iommu_tlb_sync"

static void syncs_start(void)
{
	char pid[16];
	int fd;

	snprintf(pid, sizeof(pid), "%d", getpid());
	need(!write_text(trace_path("set_ftrace_pid"), pid));
	need(!write_text(trace_path("current_tracer"), "function"));
	fd = open(trace_path("trace"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	need(fd >= 0);
	close(fd);
	need(!write_text(trace_path("tracing_on"), "1"));
}

static u64 syncs_stop(void)
{
	u64 count = 0;
	char line[1024];
	FILE *f;

	need(!write_text(trace_path("tracing_on"), "0"));
	f = fopen(trace_path("trace"), "re");
	need(f);
	while (fgets(line, sizeof(line), f))
		if (line[0] != '#' && strstr(line, SYNC_FUNCTION))
			count++;
	fclose(f);
	need(!write_text(trace_path("current_tracer"), "nop"));

	return count;
}

static void bench_syncs(void)
{
	static const unsigned int counts[] = { 0, 1, 1000 };
	struct area area;
	struct setup s;
	void *bar;
	size_t i;

	/* It is another function with another IOMMU, and may be missing */
	if (!tracing_dir() || write_text(trace_path("set_ftrace_filter"), SYNC_FUNCTION))
		return;

	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		open_display(&s);
		bar = map_bar(&s, &area, SZ_1M, 0, 0);
		map_many(&s, IOVA_BASE, bar, SZ_1M, counts[i]);
		area_put(&area);

		syncs_start();
		write_memory_enable(s.b, false);
		figure("syncs", "suspend", counts[i], syncs_stop());
		syncs_start();
		write_memory_enable(s.b, true);
		figure("syncs", "resume", counts[i], syncs_stop());
		syncs_start();
		dev_close_fd(s.b);
		figure("syncs", "release", counts[i], syncs_stop());
		close_both(&s);
	}
}

static const struct {
	const char *name;
	void (*run)(void);
} benches[] = {
	{ "map", bench_map },
	{ "dmabuf", bench_dmabuf },
	{ "page", bench_page },
	{ "ram", bench_ram },
	{ "vmas", bench_vmas },
	{ "release", bench_release },
	{ "suspend", bench_suspend },
	{ "syncs", bench_syncs },
	{ "others", bench_others },
	{ "disable", bench_disable },
	{ "fault", bench_fault },
	{ "threads", bench_threads },
	{ "memory", bench_memory },
};

static void load_floor(void)
{
	int ret = module_load("iommu_floor.ko");

	if (ret == -ENOENT)
		return;
	if (ret && ret != -EEXIST)
		fprintf(stderr, "iommu_floor.ko: %s\n", strerror(-ret));
	floor_fd = open("/dev/" IOMMU_FLOOR_DEV, O_RDWR | O_CLOEXEC);
}

/* One child for each, so that the others are measured whatever becomes of it */
int main(int argc, char **argv)
{
	int status, failed = 0;
	size_t i;
	pid_t pid;

	named_devices_init(argc, argv);
	load_floor();
	for (i = 0; i < sizeof(benches) / sizeof(*benches); i++) {
		if (!asked_for(benches[i].name, argc, argv))
			continue;

		pid = fork();
		if (!pid) {
			die_with_parent();
			benches[i].run();
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		if (status) {
			fprintf(stderr, "%s: ended with status 0x%x\n", benches[i].name, status);
			failed = 1;
		}
	}

	return failed;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what this kernel does about device memory that is mapped for DMA, and
 * prints it, a line a fact: its name, a tab, its value.  It judges nothing, so it
 * runs on any kernel.  Facts that cannot be measured here have the value "n/a" and,
 * in brackets, the reason.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

/* Seconds a fact may take to be measured */
#define PATIENCE	100

static void fact(const char *name, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("%s\t", name);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
}

static const char *error_name(int err)
{
	static char buf[32];

	switch (-err) {
	case EFAULT:
		return "EFAULT";
	case EINVAL:
		return "EINVAL";
	case EBUSY:
		return "EBUSY";
	case EEXIST:
		return "EEXIST";
	case EPERM:
		return "EPERM";
	case EOPNOTSUPP:
		return "EOPNOTSUPP";
	case ENODEV:
		return "ENODEV";
	case ENOMEM:
		return "ENOMEM";
	default:
		snprintf(buf, sizeof(buf), "errno %d", -err);
		return buf;
	}
}

#define NO_DEVICES	"n/a (" NEEDS("an edu device and one with memory") ")"

/* Devices A and B; exits if there are none */
static void open_devices(struct p2p *p, const char *name)
{
	int ret;

	ret = p2p_open(p, &want_mem);
	if (!ret)
		ret = p2p_open_peer(p);
	if (ret == -ENODEV)
		fact(name, NO_DEVICES);
	else if (ret == -ENOMEM)
		fact(name, "n/a (cannot map the BAR by way of sysfs: boot with iomem=relaxed)");
	else if (ret)
		fact(name, "n/a (cannot open the devices: %s)", error_name(ret));
	if (ret)
		exit(0);
}

/* The same with @size bytes of B's BAR mapped */
static void *open_both(struct p2p *p, const char *name, size_t size)
{
	void *bar;

	open_devices(p, name);
	bar = p2p_bar(p, 0, size);
	if (!bar) {
		fact(name, "n/a (cannot map the BAR)");
		exit(0);
	}

	return bar;
}

static const char *landed(int ret)
{
	return ret == 1 ? "lands" : ret == 0 ? "blocked" : "n/a (DMA did not end)";
}

static const char *mapped(int ret)
{
	return ret == 1 ? "mapped" : ret == 0 ? "gone" : "not in this kernel";
}

/* Whatever is left of a mapping, by whether DMA lands there */
static const char *dropped(int ret)
{
	return ret == 1 ? "stays" : ret == 0 ? "dropped" : "n/a (DMA did not end)";
}

/* The hole itself, all along one device's life */
static void measure_release(void)
{
	s64 avail, after;
	struct p2p p;
	void *bar;
	int ret;

	bar = open_both(&p, "p2p_dma", SZ_1M);
	avail = dma_avail(p.iommu);
	ret = dma_map(p.iommu, IOVA_BAR, bar, SZ_1M, DMA_RW);
	if (ret) {
		fact("p2p_dma", "fails (MAP_DMA: %s)", error_name(ret));
		return;
	}

	fact("p2p_dma", "%s", p2p_lands(&p, IOVA_BAR, 0) == 1 ? "works" : "fails");
	p2p_release(&p, bar, SZ_1M);
	fact("iommu_after_close", "%s", mapped(iommu_lookup(p.bdf_a, IOVA_BAR, NULL)));
	fact("dma_after_release", "%s", landed(p2p_lands(&p, IOVA_BAR, 0)));

	after = dma_avail(p.iommu);
	if (avail < 0)
		fact("entry_limit_after_release", "n/a (not told)");
	else
		fact("entry_limit_after_release", "%s", after == avail ? "given back" : "kept");

	ret = dma_map(p.iommu, IOVA_BAR, p.scratch, SZ_4K, DMA_RW);
	fact("iova_after_release", "%s", ret ? error_name(ret) : "free");
}

static void measure_munmap_last(void)
{
	struct p2p p;
	void *bar;

	bar = open_both(&p, "dma_after_munmap", SZ_1M);
	dma_map(p.iommu, IOVA_BAR, bar, SZ_1M, DMA_RW);
	dev_close(&p.b);
	munmap(bar, SZ_1M);
	fact("dma_after_munmap", "%s", landed(p2p_lands(&p, IOVA_BAR, 0)));
}

/* The process that has B is killed while another has the container */
static void measure_kill(void)
{
	struct p2p p;
	int fd[2];
	void *bar;
	pid_t pid;
	char c = 0;
	int ret;

	ret = p2p_open(&p, &want_mem);
	if (ret || pipe(fd)) {
		fact("dma_after_sigkill", NO_DEVICES);
		return;
	}
	p.window = pci_sysfs_map(p.bdf_b, p.bar, SZ_1M);

	pid = fork();
	if (!pid) {
		die_with_parent();
		if (p2p_open_peer(&p))
			_exit(1);
		bar = p2p_bar(&p, 0, SZ_64K);
		if (!bar || dma_map(p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW))
			_exit(1);
		if (write(fd[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	close(fd[1]);
	if (pid < 0 || !p.window || read(fd[0], &c, 1) != 1) {
		fact("dma_after_sigkill", "n/a (the other process could not map)");
		return;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fact("dma_after_sigkill", "%s", landed(p2p_lands(&p, IOVA_BAR, 0)));
}

static void report_map(const char *name, int ret)
{
	if (ret)
		fact(name, "refused %s", error_name(ret));
	else
		fact(name, "mapped");
}

static void measure_foreign(void)
{
	struct p2p p;

	open_devices(&p, "foreign_pfnmap");
	report_map("foreign_pfnmap", dma_map(p.iommu, IOVA_BAR, p.window, SZ_1M, DMA_RW));
}

static void measure_read_only(void)
{
	struct p2p p;
	void *bar;

	bar = open_both(&p, "readonly_mmap_dma_write", SZ_64K);
	mprotect(bar, SZ_64K, PROT_READ);
	report_map("readonly_mmap_dma_write", dma_map(p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
}

static void measure_map_disabled(void)
{
	struct p2p p;
	void *bar;

	bar = open_both(&p, "map_while_disabled", SZ_64K);
	vfio_pci_cmd_clear(p.b, PCI_COMMAND_MEMORY);
	report_map("map_while_disabled", dma_map(p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW));
	vfio_pci_cmd_set(p.b, PCI_COMMAND_MEMORY);
}

static void measure_group(void)
{
	struct p2p p;
	void *bar;
	int ret;

	bar = open_both(&p, "group_leaves_while_mapped", SZ_64K);
	ret = dma_map(p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW);
	if (!ret)
		ret = group_detach(p.b);
	fact("group_leaves_while_mapped", "%s", ret ? error_name(ret) : "yes");
}

/* Two devices in one mapping; is it gone when the first, or the second, is closed? */
static void two_devices(const char *name, bool first)
{
	struct vfio_pci_device *c;
	char bdf[BDF_LEN];
	int index, ret;
	struct p2p p;
	void *area;

	open_devices(&p, name);
	index = pci_find(&want_mem, 1, bdf);
	if (index < 0 || dev_open(&c, bdf, p.iommu)) {
		fact(name, "n/a (" NEEDS("two devices with memory") ")");
		return;
	}

	area = mmap(NULL, 2 * SZ_64K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED ||
	    !bar_mmap_at(area, p.b->fd, p.bar, PROT_READ | PROT_WRITE, 0, SZ_64K) ||
	    !bar_mmap_at(area + SZ_64K, c->fd, index, PROT_READ | PROT_WRITE, 0, SZ_64K)) {
		fact(name, "n/a (cannot map the BARs)");
		return;
	}

	ret = dma_map(p.iommu, IOVA_BAR, area, 2 * SZ_64K, DMA_RW);
	if (ret) {
		fact(name, "refused %s", error_name(ret));
		return;
	}

	munmap(first ? area : area + SZ_64K, SZ_64K);
	dev_close(first ? &p.b : &c);
	if (!first)
		p.window = pci_sysfs_map(bdf, index, SZ_1M);
	if (!p.window)
		fact(name, "n/a (cannot map the BAR by way of sysfs)");
	else
		fact(name, "%s", dropped(p2p_lands(&p, IOVA_BAR + (first ? 0 : SZ_64K), 0)));
}

static void measure_two_devices_first(void)
{
	two_devices("two_device_mapping_first_closed", true);
}

static void measure_two_devices_second(void)
{
	two_devices("two_device_mapping_second_closed", false);
}

/* B in a container of its own */
static void measure_two_containers(void)
{
	const char *name = "other_containers_mapping";
	struct iommu *iommu;
	struct p2p p;
	void *bar;

	if (p2p_open(&p, &want_mem)) {
		fact(name, NO_DEVICES);
		return;
	}
	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	if (p2p_open_peer_in(&p, iommu)) {
		fact(name, "n/a (no second container)");
		return;
	}
	bar = p2p_bar(&p, 0, SZ_64K);
	if (!bar || dma_map(p.iommu, IOVA_BAR, bar, SZ_64K, DMA_RW)) {
		fact(name, "n/a (cannot map)");
		return;
	}
	p2p_release(&p, bar, SZ_64K);
	fact(name, "%s", dropped(p2p_lands(&p, IOVA_BAR, 0)));
}

/*
 * CPU access to a BAR whose memory is disabled: from where it was mapped, from a
 * child that was forked before, and from where the mapping was moved to.
 */
static const char *reached(int ret)
{
	return ret == -EFAULT ? "SIGBUS" : ret ? "n/a" : "readable";
}

static int read_in_child(struct vfio_pci_device *dev, const void *addr)
{
	int fd[2], status;
	pid_t pid;
	char c;

	if (pipe(fd))
		return -errno;

	pid = fork();
	if (!pid) {
		die_with_parent();
		close(fd[1]);
		/* Until the parent has disabled the memory */
		if (read(fd[0], &c, 1) < 0)
			_exit(2);
		_exit(bus_read32(addr, NULL) ? 1 : 0);
	}
	close(fd[0]);
	if (pid < 0)
		return -errno;

	vfio_pci_cmd_clear(dev, PCI_COMMAND_MEMORY);
	close(fd[1]);
	waitpid(pid, &status, 0);
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
		return -EIO;

	return WEXITSTATUS(status) ? -EFAULT : 0;
}

static void measure_access(const char *bdf, unsigned int index)
{
	struct vfio_pci_device *dev;
	void *bar, *moved;
	char name[64];
	int ret;

	if (dev_open(&dev, bdf, iommu_init(MODE_VFIO_TYPE1V2_IOMMU)) ||
	    !region_can_mmap(dev->fd, index))
		return;

	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	bar = bar_mmap(dev->fd, index, PROT_READ, 0, SZ_4K);
	if (!bar || bus_read32(bar, NULL))
		return;

	vfio_pci_cmd_clear(dev, PCI_COMMAND_MEMORY);
	snprintf(name, sizeof(name), "cpu_access_disabled_bar%u", index);
	fact(name, "%s", reached(bus_read32(bar, NULL)));
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);

	bus_read32(bar, NULL);
	snprintf(name, sizeof(name), "cpu_access_disabled_bar%u_fork", index);
	fact(name, "%s", reached(read_in_child(dev, bar)));

	bus_read32(bar, NULL);
	moved = mmap(NULL, SZ_4K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	moved = mremap(bar, SZ_4K, SZ_4K, MREMAP_MAYMOVE | MREMAP_FIXED, moved);
	snprintf(name, sizeof(name), "cpu_access_disabled_bar%u_mremap", index);
	if (moved == MAP_FAILED) {
		fact(name, "n/a (mremap: %s)", error_name(-errno));
		return;
	}
	vfio_pci_cmd_clear(dev, PCI_COMMAND_MEMORY);
	ret = bus_read32(moved, NULL);
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	fact(name, "%s", reached(ret));
}

/* The first device, of those that may be in the machine, that has such a BAR */
static void measure_access_index(unsigned int index)
{
	static const struct pci_want *const any[] = {
		&want_edu, &want_shm, &want_e1000e, &want_testdev, &want_mem
	};
	char bdf[BDF_LEN];
	u64 size;
	size_t i;

	for (i = 0; i < sizeof(any) / sizeof(*any); i++) {
		struct vfio_pci_device *dev;
		struct iommu *iommu;
		bool ok;

		if (pci_find(any[i], 0, bdf) < 0 || pci_bar(bdf, index, NULL, &size))
			continue;
		iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
		ok = !dev_open(&dev, bdf, iommu) && region_can_mmap(dev->fd, index);
		dev_close(&dev);
		iommu_close(&iommu);
		if (!ok)
			continue;
		measure_access(bdf, index);
		break;
	}
}

static void measure_access_bar0(void)
{
	measure_access_index(0);
}

static void measure_access_bar1(void)
{
	measure_access_index(1);
}

static void measure_access_bar2(void)
{
	measure_access_index(2);
}

static void measure_access_bar3(void)
{
	measure_access_index(3);
}

static void measure_access_bar4(void)
{
	measure_access_index(4);
}

static void measure_access_bar5(void)
{
	measure_access_index(5);
}

/* How long it takes to map and to unmap, each time from a fresh mmap */
static void measure_time(void)
{
	static const struct {
		const char *name;
		size_t size;
	} sizes[] = {
		{ "64M", 64 * SZ_1M }, { "256M", 256 * SZ_1M }, { "1G", SZ_1G },
	};
	u64 start, mapped_at, end;
	long before = 0, after = 0;
	char name[64];
	struct p2p p;
	void *bar;
	size_t i;
	int ret;

	ret = p2p_open(&p, &want_mem_1g);
	if (!ret)
		ret = dev_open(&p.b, p.bdf_b, p.iommu);
	if (ret) {
		fact("map_1G_us", "n/a (no device with 1 GiB of memory)");
		return;
	}

	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		bar = p2p_bar(&p, 0, sizes[i].size);
		if (!bar)
			continue;
		before = proc_page_tables_kb();
		start = now_us();
		ret = dma_map(p.iommu, IOVA_BAR, bar, sizes[i].size, DMA_RW);
		mapped_at = now_us();
		after = proc_page_tables_kb();
		dma_unmap(p.iommu, IOVA_BAR, sizes[i].size);
		end = now_us();
		munmap(bar, sizes[i].size);

		snprintf(name, sizeof(name), "map_%s_us", sizes[i].name);
		if (ret) {
			fact(name, "fails %s", error_name(ret));
			continue;
		}
		fact(name, "%llu", (unsigned long long)(mapped_at - start));
		snprintf(name, sizeof(name), "unmap_%s_us", sizes[i].name);
		fact(name, "%llu", (unsigned long long)(end - mapped_at));
	}
	if (!ret)
		fact("map_1G_page_tables_kb", "%ld", after - before);
}

/* A mapping a page of a BAR, and the time until the device is closed */
static void measure_release_scale(void)
{
	static const unsigned int counts[] = { 1000, 4000, 16000 };
	u64 start, end;
	char name[64];
	struct p2p p;
	size_t i, n;
	void *bar;

	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		snprintf(name, sizeof(name), "release_%u_mappings_us", counts[i]);
		bar = open_both(&p, name, SZ_1M);
		for (n = 0; n < counts[i]; n++)
			if (dma_map(p.iommu, IOVA_BAR + n * 2 * SZ_4K,
				    bar + n * SZ_4K % SZ_1M, SZ_4K, DMA_RW))
				break;
		munmap(bar, SZ_1M);
		start = now_us();
		dev_close(&p.b);
		end = now_us();
		if (n == counts[i])
			fact(name, "%llu", (unsigned long long)(end - start));
		else
			fact(name, "n/a (only %zu could be made)", n);
		p2p_close(&p);
	}
}

static const struct {
	const char *name;
	void (*measure)(void);
} facts[] = {
	{ "release", measure_release },
	{ "munmap", measure_munmap_last },
	{ "sigkill", measure_kill },
	{ "foreign", measure_foreign },
	{ "readonly", measure_read_only },
	{ "disabled", measure_map_disabled },
	{ "group", measure_group },
	{ "two_devices_first", measure_two_devices_first },
	{ "two_devices_second", measure_two_devices_second },
	{ "two_containers", measure_two_containers },
	{ "bar0", measure_access_bar0 },
	{ "bar1", measure_access_bar1 },
	{ "bar2", measure_access_bar2 },
	{ "bar3", measure_access_bar3 },
	{ "bar4", measure_access_bar4 },
	{ "bar5", measure_access_bar5 },
	{ "time", measure_time },
	{ "scale", measure_release_scale },
};

/* One child for each, so that the others are measured whatever becomes of it */
int main(int argc, char **argv)
{
	int status, failed = 0;
	u64 deadline;
	pid_t pid, done;
	size_t i;

	named_devices_init(argc, argv);
	for (i = 0; i < sizeof(facts) / sizeof(*facts); i++) {
		if (!asked_for(facts[i].name, argc, argv))
			continue;

		pid = fork();
		if (!pid) {
			die_with_parent();
			facts[i].measure();
			fflush(stdout);
			_exit(0);
		}
		if (pid < 0)
			return 1;

		deadline = now_us() + PATIENCE * 1000000ULL;
		while (!(done = waitpid(pid, &status, WNOHANG)) && now_us() < deadline)
			usleep(1000);
		if (!done) {
			kill(pid, SIGKILL);
			fprintf(stderr, "%s: not measured within %d seconds\n", facts[i].name,
				PATIENCE);
			failed = 1;
		} else if (status) {
			fprintf(stderr, "%s: ended with status 0x%x\n", facts[i].name, status);
			failed = 1;
		}
	}

	return failed;
}

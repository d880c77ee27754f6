// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <libvfio.h>
#include <libvfio/p2p.h>
#include <libvfio/memory.h>
#include <libvfio/pci_sysfs.h>

void p2p_close_mapper(struct p2p *p)
{
	dev_close(&p->a);
	iommu_close(&p->iommu);
}

void p2p_close(struct p2p *p)
{
	dev_close(&p->b);
	p2p_close_mapper(p);
	if (p->window)
		munmap(p->window, SZ_1M);
	if (p->memory.vaddr)
		munmap(p->memory.vaddr, p->memory.size);
	p->window = NULL;
	p->memory.vaddr = NULL;
}

/* A page to do DMA to and from, and one that the driver of A has to itself */
static int p2p_start_driver(struct p2p *p)
{
	p->memory.vaddr = ram_alloc(2 * SZ_4K);
	p->memory.iova = IOVA_SCRATCH;
	p->memory.size = 2 * SZ_4K;
	if (!p->memory.vaddr)
		return -ENOMEM;

	iommu_map(p->iommu, &p->memory);
	p->scratch = p->memory.vaddr;
	p->a->driver.region.vaddr = p->memory.vaddr + SZ_4K;
	p->a->driver.region.iova = IOVA_SCRATCH + SZ_4K;
	p->a->driver.region.size = SZ_4K;
	vfio_pci_driver_init(p->a);
	return 0;
}

int p2p_open_mode(struct p2p *p, const struct pci_want *want_b, const char *mode)
{
	int ret;

	memset(p, 0, sizeof(*p));
	ret = pci_find(&want_edu, 0, p->bdf_a);
	if (ret >= 0)
		ret = pci_find(want_b, 0, p->bdf_b);
	if (ret < 0)
		return ret;

	p->bar = ret;
	ret = pci_bar(p->bdf_b, p->bar, &p->phys, &p->size);
	if (!ret)
		ret = dev_prepare(p->bdf_a);
	if (ret)
		return ret;

	p->iommu = iommu_init(mode);
	p->a = vfio_pci_device_init(p->bdf_a, p->iommu);
	ret = p2p_start_driver(p);
	if (ret)
		p2p_close(p);

	return ret;
}

int p2p_open(struct p2p *p, const struct pci_want *want_b)
{
	return p2p_open_mode(p, want_b, MODE_VFIO_TYPE1V2_IOMMU);
}

/* Looks at the same memory, and does so after B is closed too */
int p2p_open_window(struct p2p *p)
{
	if (!p->window)
		p->window = pci_sysfs_map(p->bdf_b, p->bar, SZ_1M);

	return p->window ? 0 : -ENOMEM;
}

int p2p_open_peer_in(struct p2p *p, struct iommu *iommu)
{
	int ret;

	ret = dev_open(&p->b, p->bdf_b, iommu);
	if (ret)
		return ret;

	return p2p_open_window(p);
}

int p2p_open_peer(struct p2p *p)
{
	return p2p_open_peer_in(p, p->iommu);
}

void *p2p_bar(struct p2p *p, size_t offset, size_t size)
{
	return bar_mmap(p->b->fd, p->bar, PROT_READ | PROT_WRITE, offset, size);
}

void p2p_release(struct p2p *p, void *bar, size_t size)
{
	munmap(bar, size);
	dev_close(&p->b);
}

int p2p_store(struct p2p *p, u64 iova, u32 val)
{
	memcpy(p->scratch, &val, sizeof(val));
	return vfio_pci_driver_memcpy(p->a, IOVA_SCRATCH, iova, sizeof(val));
}

int p2p_lands(struct p2p *p, u64 iova, size_t offset)
{
	static u32 stamp = 0x5a000000;
	u32 before = ++stamp, val = ++stamp, seen;
	int ret;

	mmio_write32(p->window + offset, before);
	ret = p2p_store(p, iova, val);
	if (ret)
		return ret;

	seen = mmio_read32(p->window + offset);
	if (seen == val)
		return 1;

	/* Anything else means that the memory cannot be seen: no proof at all */
	return seen == before ? 0 : -EIO;
}

/* Where the first of SPAN bytes is that is another one, or SPAN */
static int find_other(const u8 *bytes, u8 byte)
{
	int i;

	for (i = 0; i < SPAN && bytes[i] == byte; i++)
		;

	return i;
}

int p2p_still_reads(struct p2p *p, u64 iova, u8 byte)
{
	const u8 *seen = p->scratch;
	int ret, i;

	memset(p->scratch, ~byte, SPAN);
	ret = vfio_pci_driver_memcpy(p->a, iova, IOVA_SCRATCH, SPAN);
	if (ret)
		return ret;

	i = find_other(seen, byte);
	if (i == SPAN)
		return 1;

	printf("# byte %d at IOVA 0x%llx is 0x%02x to the device, not 0x%02x\n", i,
	       (unsigned long long)iova, seen[i], byte);
	return 0;
}

static u8 next_byte(void)
{
	static u8 byte = 0x40;

	return ++byte;
}

int p2p_reads(struct p2p *p, u64 iova, void *ram)
{
	u8 byte = next_byte();

	memset(ram, byte, SPAN);
	return p2p_still_reads(p, iova, byte);
}

int p2p_agrees(struct p2p *p, u64 iova, void *ram)
{
	const u8 *bytes = ram;
	u8 byte = next_byte();
	int ret, i;

	memset(ram, byte, SPAN / 2);
	memset(ram + SPAN / 2, ~byte, SPAN / 2);
	ret = vfio_pci_driver_memcpy(p->a, iova, iova + SPAN / 2, SPAN / 2);
	if (ret)
		return ret;

	i = find_other(bytes, byte);
	if (i == SPAN)
		return 1;

	printf("# the device copied 0x%02x from IOVA 0x%llx on, and byte %d is 0x%02x\n", byte,
	       (unsigned long long)iova, i, bytes[i]);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/sizes.h>

#include <libvfio/iommu_tables.h>
#include <libvfio/named_devices.h>

/*
 * IOMMU page tables.  Each reader answers for one IOMMU driver and its format.
 */
#define INTEL_DEBUGFS	"/sys/kernel/debug/iommu/intel"

#define INTEL_LEVELS	5
#define INTEL_ADDR_MASK	0x000ffffffffff000ULL

/*
 * A line is the IOVA's page number and the entries on the way down, leaf last
 * or, for a superpage, followed by zeroes, or by nothing:
 *
 *  0x0000000001000 |	0x<PML5E>	0x<PML4E>	0x<PDPE>	0x<PDE>	0x<PTE>
 */
static bool intel_parse_line(const char *line, u64 *iova, u64 *phys, u64 *size)
{
	unsigned long long pfn, e[INTEL_LEVELS] = { 0 };
	int leaf;

	if (sscanf(line, "%llx | %llx %llx %llx %llx %llx", &pfn, &e[0], &e[1], &e[2], &e[3],
		   &e[4]) < 3)
		return false;

	for (leaf = INTEL_LEVELS - 1; leaf > 0 && !e[leaf]; leaf--)
		;

	*iova = pfn << 12;
	*size = (u64)SZ_4K << (9 * (INTEL_LEVELS - 1 - leaf));
	*phys = e[leaf] & INTEL_ADDR_MASK & ~(*size - 1);
	return true;
}

/* Newer kernels have a file a device, older ones have all in one file */
static FILE *intel_open(const char *bdf)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), INTEL_DEBUGFS "/%s/domain_translation_struct", bdf);
	f = fopen(path, "re");

	return f ?: fopen(INTEL_DEBUGFS "/domain_translation_struct", "re");
}

/* How many entries map a part of @size bytes from @want on, the last one of them to @phys */
static int intel_count(const char *bdf, u64 want, u64 size, u64 *phys)
{
	u64 iova, base, len;
	char line[512], name[BDF_LEN];
	FILE *f = intel_open(bdf);
	bool ours = false;
	int ret = -ENOENT;

	if (!f)
		return -ENOENT;

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Device %31s", name) == 1) {
			ours = !strcmp(name, bdf);
			if (ours)
				ret = 0;
			continue;
		}
		if (!ours || !intel_parse_line(line, &iova, &base, &len))
			continue;
		if (want + size <= iova || iova + len <= want)
			continue;
		if (phys)
			*phys = base + (want - iova);
		ret++;
		if (size == 1)
			break;
	}
	fclose(f);

	return ret;
}

/* Device <bdf> ... @0x<table> */
static u64 intel_table(const char *bdf)
{
	char line[512], name[BDF_LEN], *at;
	FILE *f = intel_open(bdf);
	u64 table = 0;

	while (f && !table && fgets(line, sizeof(line), f)) {
		at = strstr(line, " @0x");
		if (at && sscanf(line, "Device %31s", name) == 1 && !strcmp(name, bdf))
			table = strtoull(at + 2, NULL, 0);
	}
	if (f)
		fclose(f);

	return table;
}

static const struct iommu_reader {
	const char *name;
	int (*count)(const char *bdf, u64 iova, u64 size, u64 *phys);
	u64 (*table)(const char *bdf);
} iommu_readers[] = {
	{ "intel", intel_count, intel_table },
	{ NULL, NULL, NULL }
};

static int iommu_entries(const char *bdf, u64 iova, u64 size, u64 *phys)
{
	const struct iommu_reader *reader;
	int ret = -ENOENT;

	for (reader = iommu_readers; reader->name; reader++) {
		ret = reader->count(bdf, iova, size, phys);
		if (ret >= 0)
			break;
	}

	return ret;
}

int iommu_lookup(const char *bdf, u64 iova, u64 *phys)
{
	return iommu_entries(bdf, iova, 1, phys);
}

int iommu_count(const char *bdf, u64 iova, u64 size)
{
	return iommu_entries(bdf, iova, size, NULL);
}

u64 iommu_table(const char *bdf)
{
	const struct iommu_reader *reader;
	u64 table = 0;

	for (reader = iommu_readers; reader->name && !table; reader++)
		table = reader->table(bdf);

	return table;
}

bool iommu_maps(const char *bdf, u64 iova, u64 phys)
{
	u64 seen = 0;
	int ret;

	ret = iommu_lookup(bdf, iova, &seen);
	if (ret < 0 || (ret == 1 && seen == phys))
		return true;

	printf("# IOVA 0x%llx is %s 0x%llx, not at 0x%llx\n", (unsigned long long)iova,
	       ret ? "mapped to" : "not mapped,", (unsigned long long)seen,
	       (unsigned long long)phys);
	return false;
}

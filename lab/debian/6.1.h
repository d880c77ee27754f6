/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Debian's own 6.1 does not have, for modules of the series that are loaded into it: the
 * fault handler inserts page by page what the series has mm/ insert at once.
 */
#include <linux/mm.h>

static inline vm_fault_t vmf_insert_pfns(struct vm_area_struct *vma, unsigned long addr,
					 unsigned long pfn, unsigned long nr)
{
	vm_fault_t ret = VM_FAULT_NOPAGE;

	for (; nr && ret == VM_FAULT_NOPAGE; nr--, pfn++, addr += PAGE_SIZE)
		ret = vmf_insert_pfn(vma, addr, pfn);

	return ret;
}

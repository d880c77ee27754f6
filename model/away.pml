/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When is the memory of a device away, and who says so?
 *
 * vfio-pci's side of suspending: memory_lock, mem_lock over the mask of
 * reasons and the call of the chain, and what the PCI core locks around a
 * reset.  The chain's other end is one bit, "peer": a peer's IOMMU maps the
 * memory.  Calling the chain waits for nobody (chain.pml), so here it is one
 * step with the change of the mask.
 *
 * Processes, each if defined; of ND devices:
 *
 *   CMD	command register: disables and enables memory; the write may
 *		fail; enabling finds BARs that were wiped, and restores them
 *   D3		the user puts the device into D3hot and back
 *   PM		low power entry and exit, and the sleep between
 *   OWN	VFIO_DEVICE_RESET, or an FLR through config space
 *   SYSFS	a reset through sysfs
 *   HOT	a hot reset of all devices; without dev_set->lock (NO_DEV_SET,
 *		as on 5.10) another one, in the opposite order
 *   AER	an error that freezes device 0, and its recovery by a reset of
 *		the link, which wipes the BARs
 *   MAP	maps and unmaps device 0 for the peer
 *   CLOSE	closes the last device; with REOPEN, it is opened again
 *
 * All resets but that of the link go through the PCI core, which calls
 * reset_prepare and reset_done.  It takes a device out of D3hot before, whoever
 * has put it there.
 *
 * Devices may be worse:
 *
 *   SOFT	they forget their BARs and the command register in D3hot.  Who
 *		takes them out by way of vfio restores that, the PCI core does
 *		not.
 *   FLAKY	a reset may leave them without BARs or memory decode, as config
 *		space was not there to be saved, or is not when it is over
 *
 * At each moment at which the memory goes, no peer may have it mapped; in the
 * end, if memory and mapping are there, the peer has it.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   PREPARE_LOCKS   reset_prepare takes memory_lock: deadlock, with itself
 *		     (OWN), and with a write of config space (CMD, SYSFS)
 *   HOT_WAITS	     hot reset waits for each memory_lock: deadlock, where there
 *		     is no dev_set->lock
 *   ONE_BIT	     disabled memory and resets share a bit: mapped while the
 *		     memory goes
 *   DONE_ENABLES    reset_done ends DISABLED as well: the same
 *   MASK_UNLOCKED   the chain is called after mem_lock was dropped: mapped
 *		     while the memory goes
 *   SUSPEND_LATE    memory is disabled and then suspended: mapped while the
 *		     memory goes
 *   IGNORE_PM	     who enables memory does not look at low power: mapped
 *		     while the memory goes
 *   IGNORE_D3	     ... or at D3hot: the same
 *   ASK_ONLY	     map believes that enabled memory is there: mapped while
 *		     the memory goes
 *   FAIL_SILENT     a failed write of the command register does not go
 *		     through the helper: left suspended
 *   PM_SILENT	     low power exit does not: left suspended
 *   OPEN_SILENT     open does not, after it went through the helper while it
 *		     was closed: left suspended
 *   RESUME_ONCE     the chain is called only if the memory was away: a resume
 *		     that failed is not tried again, and it is left suspended
 *   RELEASE_ALL     release empties the mask, though others reset the device:
 *		     mapped while the memory goes
 *   LOST_RESTORED   LOST ends whenever BARs are restored: mapped while the
 *		     memory goes
 *   LOST_EARLY	     ... whether they are in order is seen before mem_lock is
 *		     taken: the same
 *   BARS_USER	     ... whether they are is read as a user reads config space,
 *		     with mem_lock held: deadlock with a reset
 *   LOST_NO_RESUME  LOST ends when BARs are in order at a write only, not at
 *		     the end of the recovery: left suspended
 *   DONE_BLIND	     reset_done does not look: left suspended, if somebody did
 *		     during the reset
 *   LOOK_CLEARS     who looks at BARs that are wrong does not say LOST: mapped
 *		     though the memory is not there (SOFT, or FLAKY)
 *   CONFIG_CLOSED   the helper looks at config space of a device that is not
 *		     open: use of what is freed
 *   FREE_UNLOCKED   without dev_set->lock, config space is freed without
 *		     memory_lock: the same
 *
 * Those that have no flaw:
 *
 *   LOOK_CLEARS     where neither SOFT nor FLAKY
 *   BACK_ONLY	     the helper says nothing if the memory is not usable, as who
 *		     took it away has
 */

#ifndef ND
#define ND	1
#endif

#define DISABLED 1
#ifdef ONE_BIT
#define RESET	 1
#else
#define RESET	 2
#endif
#define LOST	 4

/* ---- locks ---- */
bool writer[ND];		/* memory_lock */
byte readers[ND];
bool device_lock[ND];		/* the driver core's */
bool block_cfg[ND];		/* config accesses of users wait */
bool dev_set_lock;
#ifdef BARS_USER
bool mem_lock[ND];
#endif

/* ---- the device ---- */
bool on[ND];			/* the command register */
bool d3[ND];			/* current_state is D3hot */
bool in_reset[ND];
bool asleep[ND];
bool wiped[ND];			/* its BARs; SOFT: or the command register */
byte in_use[ND];		/* runtime pm's count, without ours */

/* ---- the driver ---- */
bool head[ND];			/* from the begin of open to that of close */
bool open[ND];			/* config space is there */
bool engaged[ND];		/* low power */
bool frozen[ND];		/* pdev->error_state */
byte mask[ND];

/* ---- the mapping ---- */
bool range[ND];
bool peer[ND];
bool owed[ND];			/* a resume has failed */
byte failures = 1;

/* what must never be */
bool stray;
bool left_suspended;
bool config_gone;

#define there(d)  (on[d] && !d3[d] && !in_reset[d] && !asleep[d] && !wiped[d])
/* what config space tells; d3 hides nothing */
#define right(d)  (on[d] && !in_reset[d] && !asleep[d] && !wiped[d] && \
		   !frozen[d])

inline write_lock(d)
{
	atomic { (!writer[d] && readers[d] == 0) -> writer[d] = true }
}
inline write_unlock(d)	{ writer[d] = false }

/* The memory of d goes now, in the same step */
inline goes(d)		{ stray = peer[d]; assert(!stray) }

inline resume(d)
{
	tried = true;
	if
	:: range[d] && head[d] && !peer[d] ->
		if
		:: true ->
			stray = !there(d);
			assert(!stray);
			peer[d] = true;
			owed[d] = false
		:: failures > 0 -> failures--; owed[d] = true
		fi
	:: else
	fi
}

/*
 * mem_lock: reasons come, and the chain hears of it.
 */
inline mem_away(d, come)
{
#ifdef BARS_USER
	atomic { !mem_lock[d] };
#endif
#ifdef MASK_UNLOCKED
	atomic { was = mask[d]; mask[d] = mask[d] | (come) }
	atomic {
		if
		:: was == 0 -> peer[d] = false
		:: else
		fi;
		was = 0
	}
#else
	atomic {
		if
		:: mask[d] == 0 -> peer[d] = false
		:: else
		fi;
		mask[d] = mask[d] | (come)
	}
#endif
}

/*
 * mem_lock: reasons go, and the chain hears of it.  Only there can be seen
 * whether BARs are in order: not in the way of error_detected().
 */
inline look(d, looks)
{
#if defined(LOST_EARLY) || defined(LOST_RESTORED)
	skip
#else
	if
	:: (looks) && right(d) -> mask[d] = mask[d] & (7 - LOST)
#ifndef LOOK_CLEARS
	:: (looks) && !right(d) ->
		if
		:: mask[d] == 0 -> peer[d] = false
		:: else
		fi;
		mask[d] = mask[d] | LOST
#endif
	:: else
	fi
#endif
}

inline mem_back(d, go, looks)
{
#ifdef BARS_USER
	atomic { !mem_lock[d] -> mem_lock[d] = true }
	if
	:: atomic { looks -> !block_cfg[d] }
	:: !(looks)
	fi;
#endif
	atomic {
		was = mask[d];
		mask[d] = mask[d] & (7 - (go));
		look(d, looks);
#ifdef MASK_UNLOCKED
		is = mask[d]
	}
	atomic {
		if
		:: is == 0 -> resume(d)
		:: else
		fi;
		is = 0;
#else
		if
#ifdef RESUME_ONCE
		:: mask[d] == 0 && was != 0 -> resume(d)
#else
		:: mask[d] == 0 -> resume(d)
#endif
		:: else
		fi;
		left_suspended = mask[d] == 0 && range[d] && head[d] &&
				 !peer[d] && !tried;
		assert(!left_suspended);
#endif
		tried = false;
		was = 0
#ifdef BARS_USER
		; mem_lock[d] = false
#endif
	}
}

/* memory_lock is held for write, and is dropped now: is the memory usable? */
inline end_write(d)
{
#ifndef CONFIG_CLOSED
	atomic { was = open[d] };
#else
	atomic { was = true };
#endif
	atomic {
		usable = false;
		if
		:: !was
		:: was ->
			config_gone = !open[d];
			assert(!config_gone);
			usable = on[d];
#ifndef IGNORE_D3
			usable = usable && !d3[d];
#endif
#ifndef IGNORE_PM
			usable = usable && !engaged[d];
#endif
#ifdef LOST_EARLY
			bits = (right(d) -> LOST : 0)
#endif
		fi;
		was = 0
	}
	if
	:: usable -> mem_back(d, DISABLED | bits, true)
#ifdef BACK_ONLY
	:: !usable
#else
	:: !usable -> mem_away(d, DISABLED)
#endif
	fi;
	atomic { usable = false; bits = 0; write_unlock(d) }
}

/* err_handler->reset_prepare() and reset_done(), by the PCI core */
inline reset_prepare(d)
{
#ifdef PREPARE_LOCKS
	write_lock(d);
#endif
	mem_away(d, RESET);
#ifdef PREPARE_LOCKS
	write_unlock(d)
#endif
}
inline reset_done(d)
{
#ifdef DONE_ENABLES
	mem_back(d, RESET | DISABLED, true)
#elif defined(DONE_BLIND)
	mem_back(d, RESET, false)
#else
	mem_back(d, RESET, true)
#endif
}

/* vfio takes it out of D3hot, and restores what it has saved */
inline to_d0(d)		{ atomic { d3[d] = false } }

/* The PCI core resets what it has locked */
inline core_to_d0(d)
{
	atomic {
#ifdef SOFT
		wiped[d] = wiped[d] || d3[d];
#endif
		d3[d] = false
	}
}
inline reset_ends(d)
{
	in_reset[d] = false;
#ifdef FLAKY
	if
	:: true
	:: failures > 0 -> failures--; wiped[d] = true
	fi
#endif
}

#ifdef CMD
proctype Command(byte d)
{
	byte was, is, bits;
	bool usable, tried;

	/* ---- disable; whoever accesses config space wakes the device ---- */
	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
#ifndef SUSPEND_LATE
	mem_away(d, DISABLED);
#endif
	atomic { !block_cfg[d] }
	if
	:: atomic { goes(d); on[d] = false };
#ifdef SUSPEND_LATE
		mem_away(d, DISABLED)
#endif
	:: true ->				/* the write fails */
#ifdef FAIL_SILENT
		write_unlock(d);
		goto written
#endif
	fi;
	end_write(d);
written:
	atomic { in_use[d]-- }

	/* ---- enable, or not ---- */
	atomic {
		if
		:: true
		:: true -> goto out
		fi;
		in_use[d]++;
		asleep[d] = false
	}
	write_lock(d);
	atomic { !block_cfg[d] }
	if
	:: wiped[d] || frozen[d] ->
		/* reading gives ones; writing may be in vain */
		atomic {
			!block_cfg[d] ->
			if
			:: wiped[d] = false
			:: frozen[d]
			fi
		}
#ifdef LOST_RESTORED
		mem_back(d, LOST, false)
#endif
	:: !wiped[d]
	fi;
	atomic { !block_cfg[d] -> on[d] = true }
	end_write(d);
	atomic { in_use[d]-- }
out:	skip
}
#endif

#ifdef D3
proctype D3hot(byte d)
{
	byte was, is, bits;
	bool usable, tried;

	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	mem_away(d, DISABLED);
	atomic { goes(d); d3[d] = true }
	end_write(d);
	atomic { in_use[d]-- }

	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	to_d0(d);
	end_write(d);
	atomic { in_use[d]-- }
}
#endif

#ifdef PM
proctype Low_power(byte d)
{
	byte was, is, bits;
	bool usable, tried;

	write_lock(d);
	mem_away(d, DISABLED);
	atomic { engaged[d] = true; write_unlock(d) }
	/* ---- the way back: an ioctl, or the device wakes up by itself ---- */
	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	atomic { engaged[d] = false };
#ifdef PM_SILENT
	write_unlock(d);
#else
	end_write(d);
#endif
	atomic { in_use[d]-- }
}

proctype Sleep(byte d)
{
end:	do
	:: atomic {
		engaged[d] && !in_use[d] && !asleep[d] ->
		goes(d);
		asleep[d] = true
	   }
	od
}
#endif

#ifdef OWN
proctype Own_reset(byte d)
{
	byte was, is, bits;
	bool usable, tried;

	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	to_d0(d);
	if
	:: atomic {
		!device_lock[d] && !block_cfg[d] ->
		device_lock[d] = true;
		block_cfg[d] = true
	   }
	   reset_prepare(d);
	   core_to_d0(d);
	   atomic { goes(d); in_reset[d] = true }
	   atomic { reset_ends(d) }
	   reset_done(d);
	   atomic { block_cfg[d] = false; device_lock[d] = false }
	:: atomic { device_lock[d] || block_cfg[d] -> skip }	/* EAGAIN */
	fi;
	end_write(d);
	atomic { in_use[d]-- }
}
#endif

#ifdef SYSFS
proctype Sysfs_reset(byte d)
{
	byte was, is, bits;
	bool usable, tried;

	atomic { in_use[d]++; asleep[d] = false }
	atomic { !device_lock[d] -> device_lock[d] = true }
	atomic { !block_cfg[d] -> block_cfg[d] = true }
	reset_prepare(d);
	core_to_d0(d);
	atomic { goes(d); in_reset[d] = true }
	atomic { reset_ends(d) }
	reset_done(d);
	atomic { block_cfg[d] = false; device_lock[d] = false; in_use[d]-- }
}
#endif

#ifdef HOT
/* ND is 2 */
proctype Hot_reset(byte first)
{
	byte was, is, bits, got, d;
	bool usable, tried;

#ifndef NO_DEV_SET
	atomic { !dev_set_lock -> dev_set_lock = true }
#endif
	do
	:: got < ND ->
		d = (first + got) % ND;
#ifdef HOT_WAITS
		write_lock(d);
#else
		if
		:: atomic {
			!writer[d] && readers[d] == 0 -> writer[d] = true
		   }
		:: atomic { writer[d] || readers[d] > 0 -> break }
		fi;
#endif
		got++
	:: got == ND -> break
	od;
	if
	:: got == ND -> to_d0(0); to_d0(1)
	:: got < ND
	fi;
	if
	:: atomic {
		got == ND && !device_lock[0] && !device_lock[1] &&
		!block_cfg[0] && !block_cfg[1] ->
		device_lock[0] = true;
		device_lock[1] = true;
		block_cfg[0] = true;
		block_cfg[1] = true
	   }
	   reset_prepare(0);
	   core_to_d0(0);
	   reset_prepare(1);
	   core_to_d0(1);
	   atomic {
		goes(0);
		goes(1);
		in_reset[0] = true;
		in_reset[1] = true
	   }
	   atomic { reset_ends(0) }
	   reset_done(0);
	   atomic { reset_ends(1) }
	   reset_done(1);
	   atomic {
		block_cfg[0] = false;
		block_cfg[1] = false;
		device_lock[0] = false;
		device_lock[1] = false
	   }
	:: atomic {
		!(got == ND && !device_lock[0] && !device_lock[1] &&
		  !block_cfg[0] && !block_cfg[1]) -> skip
	   }
	fi;
	do
	:: atomic { got > 0 -> got--; d = (first + got) % ND }
		end_write(d)
	:: atomic { got == 0 -> break }
	od;
#ifndef NO_DEV_SET
	atomic { dev_set_lock = false }
#endif
}
#endif

#ifdef AER
proctype Recovery()
{
	byte was, is, bits;
	bool usable, tried;

	/* error_detected() */
	atomic {
		!device_lock[0] -> device_lock[0] = true;
		frozen[0] = true
	}
	mem_away(0, LOST);
	atomic { device_lock[0] = false }
	/* the link is reset, and nothing of the device is saved or restored */
	atomic { !device_lock[0] -> device_lock[0] = true }
	atomic { !block_cfg[0] -> block_cfg[0] = true }
	atomic { goes(0); in_reset[0] = true; wiped[0] = true }
	atomic {
		in_reset[0] = false;
		block_cfg[0] = false;
		device_lock[0] = false
	}
	/* resume() */
	atomic {
		!device_lock[0] -> device_lock[0] = true;
		frozen[0] = false
	}
#if !defined(LOST_NO_RESUME) && !defined(LOST_RESTORED)
#ifdef LOST_EARLY
	atomic { bits = (right(0) -> LOST : 0) }
	mem_back(0, bits, false);
#else
	mem_back(0, 0, true);
#endif
#endif
	atomic { device_lock[0] = false; bits = 0 }
}
#endif

#ifdef MAP
proctype Mapper()
{
	byte round, was;

	do
	:: atomic { round < 2 ->
		/* unmap; and try what has failed again */
		range[0] = false;
		peer[0] = false;
		owed[0] = false
	   }
	   atomic { !writer[0] -> readers[0]++ }
	   atomic {
		was = on[0] && !d3[0] && !engaged[0] && open[0];
		readers[0]--
	   }
	   atomic {
		if
		:: was && head[0] ->
			range[0] = true;
			if
#ifdef ASK_ONLY
			:: true ->
#else
			:: mask[0] == 0 ->
#endif
				stray = !there(0);
				assert(!stray);
				peer[0] = true
			:: else
			fi
		:: else
		fi;
		was = 0;
		round++
	   }
	:: atomic { round == 2 -> break }
	od
}
#endif

#ifdef CLOSE
proctype Close(byte d)
{
	byte was, is, bits;
	bool usable, tried;

#ifndef NO_DEV_SET
	atomic { !dev_set_lock -> dev_set_lock = true }
#endif
	atomic {
		/* the chain is called */
		peer[d] = false;
		range[d] = false;
		head[d] = false;
#ifdef RELEASE_ALL
		mask[d] = 0;
#else
		mask[d] = mask[d] & (RESET | LOST);
#endif
		in_use[d]++;
		asleep[d] = false
	}
	write_lock(d);
	atomic { engaged[d] = false };
	end_write(d);
#if !defined(NO_DEV_SET) || !defined(FREE_UNLOCKED)
	write_lock(d);
#endif
	atomic { open[d] = false };			/* config space is freed */
#if !defined(NO_DEV_SET) || !defined(FREE_UNLOCKED)
	write_unlock(d);
#endif
	atomic { goes(d); on[d] = false; d3[d] = false }
#ifndef NO_DEV_SET
	atomic { dev_set_lock = false }
#endif
#ifdef REOPEN
#ifndef NO_DEV_SET
	atomic { !dev_set_lock -> dev_set_lock = true }
#endif
	atomic { head[d] = true }
	atomic { on[d] = true; open[d] = true }
#ifndef OPEN_SILENT
	write_lock(d);
	end_write(d);
#endif
#ifndef NO_DEV_SET
	atomic { dev_set_lock = false }
#endif
	/* and mapped, if the driver lets */
	atomic { !writer[d] -> usable = on[d] && !d3[d] }
	atomic {
		if
		:: usable ->
			range[d] = true;
			if
			:: mask[d] == 0 ->
				stray = !there(d);
				assert(!stray);
				peer[d] = true
			:: else
			fi
		:: else
		fi;
		usable = false
	}
#endif
	atomic { in_use[d]-- }
}
#endif

init {
	byte d, procs;

	atomic {
		do
		:: d < ND ->
			on[d] = true;
			open[d] = true;
			head[d] = true;
			range[d] = true;
			peer[d] = true;
			d++
		:: d == ND -> break
		od;
#ifdef PM
		run Sleep(0);		/* ends never, so it is the first */
		procs++;
#endif
#ifdef CMD
		run Command(0);
#endif
#ifdef D3
		run D3hot(0);
#endif
#ifdef PM
		run Low_power(0);
#endif
#ifdef OWN
		run Own_reset(0);
#endif
#ifdef SYSFS
		run Sysfs_reset(ND - 1);
#endif
#ifdef HOT
		run Hot_reset(0);
#ifdef NO_DEV_SET
		run Hot_reset(1);
#endif
#endif
#ifdef AER
		run Recovery();
#endif
#ifdef MAP
		run Mapper();
#endif
#ifdef CLOSE
		run Close(ND - 1);
#endif
		d = 0
	}
	atomic {
		_nr_pr == 1 + procs ->
		do
		:: d < ND ->
			left_suspended = there(d) && range[d] && head[d] &&
					 !peer[d] && !owed[d];
			assert(!left_suspended);
			d++
		:: d == ND -> break
		od
	}
}

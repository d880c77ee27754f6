/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who holds what: a device, the head of each time it is open, the objects by
 * which containers follow a head, and the containers.
 *
 * One device, opened NG times at most; NI containers that may map its memory,
 * neither of which needs to be the device's own.  An object is known by its
 * number k: container CONT(k), head HEAD(k).  What it maps is one range here;
 * ranges.pml has the rest.
 *
 *   Owner(0), Owner(1)	    hold the device open (fd and vma), drop both;
 *			    Owner(1) opens at any time: a second opener, or
 *			    one that opens the device anew
 *   Reset		    the memory is away and comes back, by no ioctl of
 *			    an open file: walks the chain twice.  With FAIL, a
 *			    resume may fail, and somebody finds once more that
 *			    there is no reason for it to be away
 *   Mapper(i)		    MAP_DMA, UNMAP_DMA in container i, ROUNDS times
 *   Close(i)		    the last group leaves container i
 *   Unbind		    the driver is unbound
 *
 * With two containers, and ROUNDS of 1, this is 27 million states; without
 * Owner(1) (ONE_OPEN) it is two.
 *
 * Every process ends, so if spin finds no invalid end state there is no
 * deadlock.  A callback asserts that it is called with mem_lock held, and
 * waits for nothing but range_lock.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   CALLBACK_WAITS	callback takes iommu->lock: deadlock with whoever
 *			unregisters
 *   SYNC_LOCKED		unregister with range_lock held: deadlock
 *   NO_SYNC		unregister does not wait for the walker: use of a
 *			freed object
 *   NO_HEAD_REF	a registration does not hold its head: use of a freed
 *			head
 *   HEAD_UNGUARDED	the head is looked up without mem_lock (mem_lock is in
 *			the head, say): use of a freed head
 *   REGISTER_LATE	register when mmap_lock is dropped: a mapping that
 *			outlives the release
 *   MASK_FIRST		read the mask first and then, not in one section of
 *			mem_lock, register: mapped while the memory is away
 *   MASK_IN_HEAD	a head begins with an empty mask, though the memory is
 *			away: mapped while the memory is away
 *   MATCH_BY_DEVICE	an object is found by its device: a device opened
 *			again gets a dead one
 *   KILL_LATE		the driver disables the device before the chain is
 *			called: a mapping that outlives the release
 *   REAP_EARLY		a dead object is freed while it has ranges: use of a
 *			freed object
 *   DROP_DEAD		the callback frees the object that it kills: use of a
 *			freed object
 *   RESUME_ONCE		the chain is called only if the mask was not 0: a
 *			resume that failed (FAIL) is not tried again
 *   RECLAIM_LOCKED	memory is reclaimed with range_lock held, by way of a
 *			disk that waits for the recovery that suspends:
 *			deadlock
 *
 * One that has no flaw, so the choice is one of taste and cost:
 *
 *   LIST		no SRCU: objects are linked and unlinked under mem_lock,
 *			which is then one for each head
 */

#ifndef NI
#define NI	2
#endif
#define NG	2
#define NK	(NI * NG)
#define NONE	9
#define CONT(k)	((k) / NG)
#define HEAD(k)	((k) % NG)
#ifndef ROUNDS
#define ROUNDS	2
#endif

#define RELEASE	0
#define SUSPEND	1
#define RESUME	2

/* ---- the device ---- */
bool device_lock;		/* the driver core's */
bool dev_set_lock;		/* open and close */
bool mem_lock;			/* mask, head, and the calls of the chain */
byte opens = 1;			/* under dev_set_lock */
byte users = 2;			/* registration, and Owner(0)'s open */
bool dev_freed;
byte head;			/* of the present open, or NONE */
byte heads = 1;			/* made so far */
bool away;			/* the mask is not 0 */
#ifdef FAIL
byte failures = 1;		/* how often memory may be short */
#endif
bool recovering;		/* and a disk waits until it is suspended */

#ifdef FAIL
bool failed;
#endif

/* ---- heads ---- */
byte head_refs[NG];
bool head_freed[NG];
bool released[NG];		/* the device may be disabled */
bool suspended[NG];		/* the memory may be gone for now */
bool walker[NG];		/* SRCU; mem_lock allows one, so who waits for
				   none waits for no less than a grace period */

/* ---- the mm all of this happens in ---- */
byte mm_readers;
bool vma[2];

/* ---- containers ---- */
bool in_ioctl[NI];
bool iommu_lock[NI];
bool range_lock[NI];
bool iommu_freed[NI];

/* ---- objects ---- */
bool made[NK];
bool chain[NK];
bool obj_away[NK];
bool dead[NK];
bool obj_freed[NK];
bool range[NK];
bool mapped[NK];

/* what must never be */
bool left_mapped;
bool away_mapped;
bool left_suspended;
bool dead_match;
bool not_told;
bool leaked;

inline lock_ranges(i)
{
	(!range_lock[i] || iommu_freed[i]);
	assert(!iommu_freed[i]);
	range_lock[i] = true
}

inline put_head(g)
{
	assert(!head_freed[g]);
	head_refs[g]--;
	if
	:: head_refs[g] == 0 ->
		assert(!walker[g]);
		head_freed[g] = true
	:: else
	fi
}

/* One object hears of it.  Its turn has come already, so it may be late. */
inline callback(k, event)
{
	atomic {
		assert(mem_lock);
		assert(!obj_freed[k]);
#ifdef CALLBACK_WAITS
		!iommu_lock[CONT(k)] -> iommu_lock[CONT(k)] = true;
#endif
		lock_ranges(CONT(k));
		if
		:: event == RELEASE -> dead[k] = true; mapped[k] = false
		:: event == SUSPEND -> obj_away[k] = true; mapped[k] = false
		:: event == RESUME ->
			obj_away[k] = false;
#ifdef FAIL
			if
			:: failures > 0 -> failures--; failed = true
			:: mapped[k] = range[k] && !dead[k]
			fi
#else
			mapped[k] = range[k] && !dead[k]
#endif
		fi;
		range_lock[CONT(k)] = false;
#ifdef CALLBACK_WAITS
		iommu_lock[CONT(k)] = false;
#endif
#ifdef DROP_DEAD
		if
		:: event == RELEASE -> chain[k] = false; obj_freed[k] = true
		:: else
		fi;
#endif
		k = k + NG
	}
}

/* mem_lock held.  k goes from object to object of head g. */
inline call_chain(g, event)
{
	atomic { assert(!head_freed[g]); walker[g] = true; k = g }
	do
	:: atomic { k < NK && !chain[k] -> k = k + NG }
	:: atomic { k < NK && chain[k] -> skip } callback(k, event)
	:: atomic { k >= NK -> break }
	od;
	atomic { k = 0; walker[g] = false }
}

/* iommu->lock held */
inline unregister(k)
{
	atomic {
#ifdef LIST
		!mem_lock;
		assert(!head_freed[HEAD(k)]);
		assert(chain[k]);
		chain[k] = false
#else
		assert(!head_freed[HEAD(k)]);
		assert(chain[k]);
		chain[k] = false
#endif
	}
	atomic {
#if !defined(LIST) && !defined(NO_SYNC)
		!walker[HEAD(k)];
#endif
		assert(!head_freed[HEAD(k)]);
#ifndef NO_HEAD_REF
		put_head(HEAD(k));
#endif
		dead[k] = false;
		obj_away[k] = false;
		obj_freed[k] = true
	}
}

proctype Owner(bit me; bool opened)
{
	byte k, g;

	if
	:: !opened ->
		atomic {
			if
			:: users == 0 -> goto out	/* unbound */
			:: else -> users++
			fi
		}
		atomic {
			!dev_set_lock -> dev_set_lock = true;
			assert(!dev_freed);
			opens++;
			if
			:: opens == 1 ->
				!mem_lock;
				head = heads;
				heads++;
				head_refs[head] = 1;
#ifdef MASK_IN_HEAD
				suspended[head] = away;
				away = false;
#else
				suspended[head] = away;
#endif
			:: else
			fi;
			dev_set_lock = false
		}
		atomic { mm_readers == 0 -> vma[me] = true }
	:: else
	fi;

	atomic { mm_readers == 0 -> vma[me] = false }

	/* ---- close ---- */
	atomic {
		!dev_set_lock -> dev_set_lock = true;
		assert(!dev_freed);
		if
		:: opens > 1 -> goto closed
		:: else
		fi;
#ifdef KILL_LATE
		released[head] = true;
#endif
		!mem_lock -> mem_lock = true;
		g = head
	}
	call_chain(g, RELEASE);
	atomic {
		k = g;
		do
		:: k < NK ->
			not_told = chain[k] && !dead[k];
			assert(!not_told);
			left_mapped = mapped[k];
			assert(!left_mapped);
			k = k + NG
		:: else -> break
		od;
		k = 0;
		released[g] = true;
		head = NONE;
		mem_lock = false
	}
	atomic {
		put_head(g);
		g = 0;
		goto closed
	}
	atomic {
		skip;
closed:		opens--;
		dev_set_lock = false
	}
	atomic { users-- }
out:	skip
}

proctype Reset()
{
	byte k, g;
#ifdef FAIL
	bool was;
#endif

	atomic {
		!device_lock -> device_lock = true;
		if
		:: dev_freed -> goto out
		:: else -> recovering = true
		fi
	}
#ifdef HEAD_UNGUARDED
	atomic { g = head; !mem_lock -> mem_lock = true; away = true }
	atomic { g != NONE -> assert(!head_freed[g]) }
#else
	atomic { !mem_lock -> mem_lock = true; away = true; g = head }
#endif
	if
	:: g != NONE ->
		call_chain(g, SUSPEND);
		atomic {
			k = g;
			do
			:: k < NK ->
				away_mapped = mapped[k];
				assert(!away_mapped);
				k = k + NG
			:: else -> break
			od;
			suspended[g] = true;
			k = 0
		}
	:: else
	fi;
	atomic { mem_lock = false; g = 0; recovering = false }

#ifdef FAIL
again:
#endif
	atomic {
		!mem_lock -> mem_lock = true;
#ifdef FAIL
		was = away;
		failed = false;
#endif
		away = false;
		g = head;
		if
		:: g != NONE -> suspended[g] = false
		:: else
		fi
	}
	if
	:: g != NONE ->
#ifdef RESUME_ONCE
		if
		:: was -> call_chain(g, RESUME)
		:: !was
		fi;
#else
		call_chain(g, RESUME);
#endif
		atomic {
			k = g;
			do
			:: k < NK ->
				left_suspended = chain[k] && range[k] &&
#ifdef FAIL
						 !(failed && was) &&
#endif
						 !dead[k] && !mapped[k];
				assert(!left_suspended);
				k = k + NG
			:: else -> break
			od;
			k = 0
		}
	:: else
	fi;
#ifdef FAIL
	atomic {
		g = 0;
		mem_lock = false;
		if
		:: was -> goto again
		:: else
		fi
	}
#else
	atomic { mem_lock = false; g = 0 }
#endif
	atomic {
		skip;
out:		device_lock = false
	}
}

proctype Mapper(byte i)
{
	byte round, k, g;

	do
	:: atomic { round < ROUNDS -> skip }
		/* ---- map; group_lock is held for read over ioctls ---- */
		atomic {
			!in_ioctl[i] ->
			if
			:: iommu_freed[i] -> goto out
			:: else -> in_ioctl[i] = true
			fi;
			!iommu_lock[i] -> iommu_lock[i] = true;
			g = 0
		}
		/* what is dead and has no ranges goes */
		do
		:: atomic { g < NG ->
			k = i * NG + g;
			if
			:: (made[k] && !obj_freed[k] && dead[k]
#ifndef REAP_EARLY
			    && !range[k]
#endif
			   ) -> skip
			:: else -> g++; goto next
			fi
		   }
		   unregister(k);
		   g++;
next:		   skip
		:: atomic { g == NG -> g = 0; k = 0; break }
		od;
		atomic {
			mm_readers++;
			if
			:: !vma[0] && !vma[1] ->
				mm_readers--;
				goto map_done			/* EFAULT */
			:: else
			fi;
			/* the vma keeps the device open, so its head stays */
			assert(!dev_freed);
			assert(head != NONE);
			assert(!head_freed[head]);
			g = head;
			k = i * NG + g;
#ifdef MATCH_BY_DEVICE
			if
			:: g == 1 && made[k - 1] && !obj_freed[k - 1] -> k--
			:: else
			fi;
#endif
			if
			:: made[k] && !obj_freed[k] ->
				dead_match = dead[k];
				assert(!dead_match);
				mm_readers--;
				goto registered
			:: else
			fi;
#ifdef REGISTER_LATE
			mm_readers--;
#endif
#ifdef MASK_FIRST
			obj_away[k] = away
#endif
		}
		atomic {
			!mem_lock ->
			assert(!made[k]);
			made[k] = true;
			chain[k] = true;
#ifndef NO_HEAD_REF
			head_refs[g]++;
#endif
#ifndef MASK_FIRST
			obj_away[k] = away;
#endif
#ifndef REGISTER_LATE
			mm_readers--;
#endif
		}
		/* the driver was asked, and knew the memory to be there */
registered:	if
		:: skip
		:: skip ->		/* no page for a page table */
#ifdef RECLAIM_LOCKED
			atomic { lock_ranges(i) }
#endif
			atomic { !recovering };
#ifdef RECLAIM_LOCKED
			range_lock[i] = false
#endif
		fi;
		atomic {
			lock_ranges(i);
			assert(!obj_freed[k]);
			if
			:: !range[k] -> range[k] = true
			:: else -> goto map_done_ranges		/* EEXIST */
			fi;
			if
			:: !dead[k] && !obj_away[k] ->
				mapped[k] = true;
				left_mapped = released[g];
				assert(!left_mapped);
				away_mapped = suspended[g];
				assert(!away_mapped)
			:: else
			fi;
map_done_ranges:
			range_lock[i] = false;
map_done:		iommu_lock[i] = false;
			k = 0;
			g = 0;
			in_ioctl[i] = false
		}

		/* ---- unmap: whatever has a range ---- */
		if
		:: atomic {
			!in_ioctl[i] ->
			if
			:: iommu_freed[i] -> goto out
			:: else -> in_ioctl[i] = true
			fi;
			!iommu_lock[i] -> iommu_lock[i] = true;
			lock_ranges(i);
			k = i * NG;
			do
			:: k < (i + 1) * NG ->
				if
				:: range[k] ->
					assert(!obj_freed[k]);
					range[k] = false;
					mapped[k] = false
				:: else
				fi;
				k++
			:: k == (i + 1) * NG -> k = 0; break
			od;
			range_lock[i] = false;
			iommu_lock[i] = false;
			in_ioctl[i] = false
		   }
		:: skip			/* it stays */
		fi;
		atomic { round++ }
	:: atomic { round == ROUNDS -> break }
	od;
out:	skip
}

proctype Close(byte i)
{
	byte k;

	/* group_lock for write */
	atomic {
		(!in_ioctl[i] && !iommu_lock[i]) -> iommu_lock[i] = true;
		in_ioctl[i] = true;
		lock_ranges(i);
		k = i * NG;
		do
		:: k < (i + 1) * NG -> range[k] = false; mapped[k] = false; k++
		:: k == (i + 1) * NG -> break
		od;
		k = i * NG;
#ifndef SYNC_LOCKED
		range_lock[i] = false
#endif
	}
	do
	:: atomic { k < (i + 1) * NG && made[k] && !obj_freed[k] -> skip }
		unregister(k);
		k++
	:: atomic { k < (i + 1) * NG && !(made[k] && !obj_freed[k]) -> k++ }
	:: atomic { k == (i + 1) * NG -> break }
	od;
	atomic {
		k = 0;
#ifdef SYNC_LOCKED
		range_lock[i] = false;
#endif
		iommu_freed[i] = true;
		iommu_lock[i] = false;
		in_ioctl[i] = false
	}
}

proctype Unbind()
{
	users--;
	atomic {
		(users == 0 && !device_lock) ->
		assert(head == NONE);
		dev_freed = true
	}
}

init {
	byte n;

	atomic {
		vma[0] = true;
		head_refs[0] = 1;
		n = 0;
		do
		:: n < NI -> run Mapper(n); run Close(n); n++
		:: n == NI -> break
		od;
		run Owner(0, true);
#ifndef ONE_OPEN
		run Owner(1, false);
#endif
		run Reset();
		run Unbind()
	}
	atomic {
		_nr_pr == 1 ->
		n = 0;
		do
		:: n < NK ->
			leaked = made[n] && !obj_freed[n];
			assert(!leaked);
			leaked = n < heads && !head_freed[n];
			assert(!leaked);
			n++
		:: n == NK -> break
		od
	}
}

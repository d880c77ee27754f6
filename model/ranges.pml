/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ranges of device memory in the IOMMU domains of one container: mapped,
 * suspended, resumed and unmapped, while domains come and go.
 *
 * A range consists of SZ pieces.  A piece is what one section of range_lock
 * maps: its page table entries are in one page table.  "done" is how many
 * pieces of a range, from its first, are in the page tables of all domains but
 * the one that joins, which has "joined" of them.
 *
 *   Mapper	    MAP_DMA of NR ranges, UNMAP_DMA; ROUNDS times.  UNMAP_DMA may
 *		    leave the first range, which is of another vfio_dma then.
 *		    Holds iommu->lock.
 *   Device(o)	    suspends and resumes user o, and may release it in the end.
 *		    That is the callback; it holds mem_lock, so these come one
 *		    after the other, and not iommu->lock.
 *   Groups	    a group joins with a domain of its own, once more if that
 *		    fails; the group of the first domain leaves, and that of the
 *		    second one may.  Holds iommu->lock.
 *
 * Two users (with TWO) are two devices.  With EXTEND, a range is one piece at
 * first, and MAP_DMA extends it.
 *
 * The list of a user has what is not mapped completely in front.  MAP_DMA,
 * UNMAP_DMA and the callback map by the same loop, which takes the first of the
 * list, until that is complete; two of them may run at once.
 *
 * Every section of range_lock ends with the invariant, in unlock_ranges().
 * Whoever waits for range_lock waits for somebody who waits for nothing; as
 * every process ends, a deadlock would be found.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   LOOK_ONCE	    the loop looks for "away" and "dead" in its first section
 *		    only: mapped while the memory is away
 *   UNLINK_LATER   unmap takes the ranges out of the IOMMU in one section and
 *		    off the lists in another: mapped when UNMAP_DMA is through
 *   UNMAP_HOLES    what is not mapped is unmapped as well, and the IOMMU
 *		    driver takes its neighbour along: the domains differ
 *   TRUST_RANGE    the loop goes on with its range after range_lock was
 *		    dropped: use after free
 *   TRUST_DONE	    ... it finds the range anew, but goes on where it was: a
 *		    piece is mapped twice
 *   NO_UNROLL	    a piece that one domain cannot map stays in those before:
 *		    the domains differ
 *   UNROLL_ALL	    ... or is unmapped in the domain that joins, though that
 *		    was passed over: the same
 *   ONE_CALL	    the whole range is one call, and the IOMMU driver leaves
 *		    what it has mapped when it runs out of memory: mapped
 *		    though the range is not
 *   EXTENDED_STAYS a range that is extended (EXTEND) stays where it is in the
 *		    list: nobody finds it behind a complete one
 *   NEW_BEHIND	    a new one goes to the tail: the same
 *   JOIN_UNSEEN    suspend and release pass over the domain that joins:
 *		    mapped while the memory is away
 *   JOIN_NO_RESUME who maps a piece passes over it: the domains differ
 *   JOIN_AHEAD	    who maps a piece maps it there, though pieces before it
 *		    are yet to come: the same
 *   JOIN_STALE	    "joined" is not set to 0 when a domain begins to join:
 *		    the same
 *   JOIN_LATER	    it is listed, and in another section begins to join: the
 *		    same
 *   FAIL_LATER	    the domain that failed to join is emptied in one section
 *		    and leaves the list in another: the same
 *   FAIL_PLAIN	    ... if it fails before it comes to the ranges, it leaves
 *		    the list as if it had none: the same
 *   FREE_LISTED    a domain is freed before it is off the list (as stock
 *		    does): use after free
 *   NO_RETRY	    a resume that failed is not tried again by MAP and UNMAP:
 *		    left suspended
 *   NO_LAST_DOMAIN the last domain goes and the ranges stay: a range without
 *		    a domain to be in
 *
 * Those that have no flaw, so it is a matter of cost:
 *
 *   STAYS_BEHIND   a range that is unmapped stays where it is in the list, as
 *		    either all of the user are, or it is unlinked
 *   UNMAP_IN_ORDER unmap has a section for each range, which unmaps and
 *		    unlinks it; a resume then maps what is about to go
 */

#ifndef NR
#define NR	2		/* ranges of the vfio_dma */
#endif
#ifndef SZ
#define SZ	2		/* pieces of a range */
#endif
#ifndef ROUNDS
#define ROUNDS	2
#endif
#ifdef TWO
#define NO	2		/* users */
#else
#define NO	1
#endif
#define USER(r)	((r) % NO)
#define ND	2		/* domains */
#define NONE	9
#define PT(d, r) pt[(d) * NR + (r)]

bool iommu_lock;
bool range_lock;

/* under range_lock */
bool away[NO];
bool dead[NO];
bool linked[NR];		/* the range exists */
byte size[NR];
byte done[NR];
byte joined[NR];
byte list[NR];			/* who is not linked does not count */
bool listed[ND];
byte joining = NONE;		/* domain that is being filled */

byte pt[ND * NR];		/* pieces in the page tables of a domain */
bool domain_freed[ND];

byte failures = 2;		/* how often memory may be short */
bool owed[NO];			/* the last to try has failed; nobody asks */

/* what must never be */
bool away_mapped;
bool unlinked_mapped;
bool uneven;
bool mapped_twice;
bool unsorted;
bool range_gone;
bool domain_gone;
bool left_suspended;
bool no_domain;

/* How much of a range a domain should have */
#define wanted(d, r)	(!linked[r] || !listed[d] -> 0 :	\
			 (joining == d -> joined[r] : done[r]))
#define complete(r)	(done[r] >= size[r])

inline lock_ranges()	{ !range_lock -> range_lock = true }

inline unlock_ranges()
{
	d_step {
		r = 0;
		do
		:: r < NR ->
			d = 0;
			do
			:: d < ND ->
				away_mapped = PT(d, r) && linked[r] &&
					      (away[USER(r)] || dead[USER(r)]);
				assert(!away_mapped);
				unlinked_mapped = PT(d, r) && !linked[r];
				assert(!unlinked_mapped);
				uneven = !domain_freed[d] &&
					 PT(d, r) != wanted(d, r);
				assert(!uneven);
				d++
			:: d == ND -> break
			od;
			mapped_twice = linked[r] && done[r] > size[r];
			assert(!mapped_twice);
			uneven = linked[r] && joining != NONE &&
				 joined[r] > done[r];
			assert(!uneven);
			/* whatever is complete has nothing else behind it */
			d = r + 1;
			do
			:: d < NR ->
				unsorted = linked[list[r]] && linked[list[d]] &&
					   USER(list[r]) == USER(list[d]) &&
					   complete(list[r]) &&
					   !complete(list[d]);
				assert(!unsorted);
				d++
			:: else -> break
			od;
			r++
		:: r == NR -> break
		od;
		r = 0;
		d = 0;
		range_lock = false
	}
}

/*
 * To the front or tail of the list of its user, which has every NOth place.
 * In a d_step or atomic, and uses d.
 */
inline to_front(r)
{
	d = USER(r);
	do
	:: list[d] != r -> d = d + NO
	:: else -> break
	od;
	do
	:: d >= NO -> list[d] = list[d - NO]; d = d - NO
	:: else -> break
	od;
	list[USER(r)] = r;
	d = 0
}

inline to_tail(r)
{
	d = USER(r);
	do
	:: list[d] != r -> d = d + NO
	:: else -> break
	od;
	do
	:: d + NO < NR -> list[d] = list[d + NO]; d = d + NO
	:: else -> break
	od;
	list[d] = r;
	d = 0
}

/* Whether a piece that comes next is for domain d */
#ifdef JOIN_NO_RESUME
#define takes(d, r)	(listed[d] && joining != (d))
#elif defined(JOIN_AHEAD)
#define takes(d, r)	(listed[d])
#else
#define takes(d, r)	(listed[d] && (joining != (d) ||	\
				      joined[r] == done[r]))
#endif

/*
 * The next piece of range r, in every domain that should have it, in the one
 * order or the other.  Sets failed if memory is short; it is nowhere then.
 */
inline map_piece(r)
{
	if
	:: flip = 0
	:: listed[0] && listed[1] -> flip = 1
	fi;
	i = 0;
	do
	:: i < ND && takes(i ^ flip, r) ->
		domain_gone = domain_freed[i ^ flip];
		assert(!domain_gone);
		if
		:: PT(i ^ flip, r)++; i++
		:: failures > 0 ->
			failures--;
			failed = true;
#ifndef NO_UNROLL
			do
			:: i > 0 ->
				i--;
				if
#ifdef UNROLL_ALL
				:: listed[i ^ flip] && PT(i ^ flip, r) ->
#else
				:: takes(i ^ flip, r) ->
#endif
					PT(i ^ flip, r)--
				:: else
				fi
			:: i == 0 -> break
			od;
#endif
			break
#ifdef ONE_CALL
		/* not the first piece of the call; what is mapped stays */
		:: failures > 0 ->
			failures--;
			failed = true;
			PT(i ^ flip, r)++;
			break
#endif
		fi
	:: i < ND && !takes(i ^ flip, r) -> i++
	:: i == ND ->
		if
#ifndef JOIN_NO_RESUME
		:: joining != NONE && joined[r] == done[r] -> joined[r]++
#endif
		:: else
		fi;
		done[r]++;
		if
		:: complete(r) -> to_tail(r)
		:: else
		fi;
		break
	od;
	i = 0;
	flip = 0
}

/* All of range r, in every domain that has any of it */
inline unmap_range(r)
{
	d_step {
		d = 0;
		do
		:: d < ND && (listed[d]
#ifdef JOIN_UNSEEN
			      && joining != d
#endif
			     ) ->
			domain_gone = domain_freed[d];
			assert(!domain_gone);
			i = (joining == d -> joined[r] : done[r]);
			PT(d, r) = (PT(d, r) > i -> PT(d, r) - i : 0);
			i = 0;
#ifdef UNMAP_HOLES
			if
			:: done[r] < SZ && r + 1 < NR && PT(d, r + 1) ->
				PT(d, r + 1)--
			:: else
			fi;
#endif
			d++
		:: d < ND && !(listed[d]
#ifdef JOIN_UNSEEN
			       && joining != d
#endif
			      ) -> d++
		:: d == ND -> break
		od;
		d = 0;
		done[r] = 0;
		joined[r] = 0;
#ifndef STAYS_BEHIND
		to_front(r)
#endif
	}
}

/*
 * Map what is not mapped of user o, one piece a section.  Nothing is known of
 * a range once range_lock was dropped, except that the user is there.  With
 * iommu->lock held (may_wait), it may make room when memory is short.  Leaves
 * err set if it gave up.
 */
inline catch_up(o, may_wait)
{
	atomic { more = true; err = false; looked = false }
	do
	:: atomic {
		more ->
		lock_ranges();
#ifdef TRUST_RANGE
		if
		:: n < NR ->
			range_gone = !linked[n];
			assert(!range_gone)
		:: else
		fi;
#endif
		/* the first of the list */
		r = 0;
		do
		:: r < NR && !(linked[list[r]] && USER(list[r]) == o) -> r++
		:: else -> break
		od;
#ifdef TRUST_DONE
		if
		:: n == NR
		:: n < NR ->
			/* chosen in the section before, and it is there */
			r = 0;
			do
			:: list[r] != n -> r++
			:: else -> break
			od;
			if
			:: linked[n]
			:: else -> r = NR
			fi
		fi;
#endif
		if
		:: r < NR && (!complete(list[r])
#ifdef TRUST_DONE
			      || n < NR
#endif
			     ) && (looked || !(away[o] || dead[o])) ->
			n = list[r];
			r = 0;
#ifdef LOOK_ONCE
			looked = true;
#endif
			map_piece(n);
			if
			:: failed && may_wait -> failed = false
			:: failed ->
				failed = false;
				more = false;
				err = true;
				owed[o] = true
			:: else
			fi
		:: else ->
			n = NR;
			more = false;
			owed[o] = false
		fi;
#if defined(TRUST_RANGE) || defined(TRUST_DONE)
		if
		:: n < NR && done[n] < size[n] && more
		:: else -> n = NR
		fi;
#else
		n = NR;
#endif
		r = 0;
		unlock_ranges()
	   }
	:: atomic { !more -> looked = false; break }
	od
}

/* iommu->lock held: ranges from "first" on are unmapped, and are no more */
inline unlink_from(first)
{
#ifdef UNMAP_IN_ORDER
	n = first;
	do
	:: atomic {
		n < NR ->
		lock_ranges();
		if
		:: linked[n] -> unmap_range(n); linked[n] = false
		:: else
		fi;
		n++;
		unlock_ranges()
	   }
	:: atomic { n == NR -> break }
	od
#else
	atomic {
		lock_ranges();
		n = first;
		do
		:: n < NR ->
			if
			:: linked[n] -> unmap_range(n)
			:: else
			fi;
#ifndef UNLINK_LATER
			linked[n] = false;
#endif
			n++
		:: n == NR -> break
		od;
		unlock_ranges()
	}
#ifdef UNLINK_LATER
	atomic {
		lock_ranges();
		n = first;
		do
		:: n < NR -> linked[n] = false; done[n] = 0; n++
		:: n == NR -> break
		od;
		unlock_ranges()
	}
#endif
#endif
}

inline retry()
{
#ifndef NO_RETRY
	o = 0;
	do
	:: atomic { o < NO -> skip } catch_up(o, true); o++
	:: atomic { o == NO -> o = 0; break }
	od
#else
	atomic {
		o = 0;
		do
		:: o < NO ->
			left_suspended = owed[o] && !away[o] && !dead[o];
			assert(!left_suspended);
			o++
		:: o == NO -> o = 0; break
		od
	}
#endif
}

proctype Mapper()
{
	byte round, k, from, n = NR, r, d, o, i, flip;
	bool failed, looked, more, err;

	do
	:: atomic { round < ROUNDS -> !iommu_lock -> iommu_lock = true }
		/* ---- map ---- */
		atomic {
			/* without a domain nothing is mapped */
			if
			:: !listed[0] && !listed[1] -> goto unlock
			:: else
			fi;
			/* gone with the last domain? */
			if
			:: from && !linked[0] -> from = 0
			:: else
			fi;
			k = from
		}
		do
		:: atomic { k < NR ->
			/* the driver is asked: open, enabled? */
			if
			:: away[USER(k)] || dead[USER(k)] -> goto undo
			:: else
			fi
		   }
		   atomic {
			lock_ranges();
			linked[k] = true;
			done[k] = 0;
			joined[k] = 0;
#ifdef EXTEND
			size[k] = 1;
#else
			size[k] = SZ;
#endif
#ifdef NEW_BEHIND
			to_tail(k);
#else
			to_front(k);
#endif
			unlock_ranges()
		   }
		   catch_up(USER(k), true);
		   if
		   :: atomic { err -> goto undo }
		   :: atomic { !err -> skip }
		   fi;
#ifdef EXTEND
		   atomic {
			lock_ranges();
			size[k] = SZ;
#ifndef EXTENDED_STAYS
			to_front(k);
#endif
			unlock_ranges()
		   }
		   catch_up(USER(k), true);
		   if
		   :: atomic { err -> goto undo }
		   :: atomic { !err -> skip }
		   fi;
#endif
		   atomic { k++ }
		:: atomic { k == NR -> k = 0; break }
		od;
		retry();
		atomic { iommu_lock = false }

		/* ---- unmap ---- */
		atomic {
			!iommu_lock -> iommu_lock = true;
			if
			:: from = 0
			:: from = NR > 1
			fi
		}
undo:		atomic { k = 0; err = false }
		unlink_from(from);
		retry();
unlock:		atomic { iommu_lock = false; round++ }
	:: atomic { round == ROUNDS -> break }
	od
}

proctype Device(byte o)
{
	byte turn, n = NR, r, d, i, flip;
	bool failed, looked, more, err;

	do
	:: atomic {
		turn < 2 ->
		lock_ranges();
		away[o] = true;
		do
		:: n > 0 ->
			n--;
			if
			:: linked[n] && USER(n) == o -> unmap_range(n)
			:: else
			fi
		:: n == 0 -> break
		od;
		n = NR;
		owed[o] = false;
		unlock_ranges()
	   }
	   /* the memory is away */
	   atomic { lock_ranges(); away[o] = false; unlock_ranges() }
	   catch_up(o, false);
	   atomic { err = false; turn++ }
	:: atomic { turn == 2 -> break }
	od;
	if
	:: atomic {
		lock_ranges();
		dead[o] = true;
		n = 0;
		do
		:: n < NR ->
			if
			:: linked[n] && USER(n) == o -> unmap_range(n)
			:: else
			fi;
			n++
		:: n == NR -> break
		od;
		owed[o] = false;
		unlock_ranges()
	   }
	:: skip
	fi
}

proctype Groups()
{
	byte v, n = NR, r, d, i;
	bool retried;

	/* ---- a domain joins ---- */
again:	atomic { !iommu_lock -> iommu_lock = true; domain_freed[1] = false }
	atomic {
		lock_ranges();
		listed[1] = true;
#ifdef JOIN_LATER
		unlock_ranges()
	}
	atomic {
		lock_ranges();
#endif
		joining = 1;
#ifndef JOIN_STALE
		n = 0;
		do
		:: n < NR -> joined[n] = 0; n++
		:: n == NR -> break
		od;
#endif
		n = 0;
		unlock_ranges()
	}
	/* RAM comes first, and is not in this model, but that it may fail is */
	if
	:: atomic {
		failures > 0 ->
		failures--;
#ifdef FAIL_PLAIN
		lock_ranges();
		joining = NONE;
		listed[1] = false;
		unlock_ranges();
		domain_freed[1] = true;
		n = NR;
		goto joins
#else
		goto fails
#endif
	   }
	:: true
	fi;
	do
	:: atomic {
		n < NR ->
		lock_ranges();
		if
		:: linked[n] && joined[n] < done[n] ->
			if
			:: PT(1, n)++; joined[n]++
			:: failures > 0 ->
				failures--;
				unlock_ranges();
				goto fails
			fi
		:: else -> n++		/* and equal it stays */
		fi;
		unlock_ranges()
	   }
	:: atomic {
		n == NR ->
		lock_ranges();
		joining = NONE;
		unlock_ranges();
		goto joins
	   }
	od;
fails:	/* all of it goes again */
	atomic {
		lock_ranges();
		n = 0;
		do
		:: n < NR ->
			if
			:: linked[n] -> PT(1, n) = PT(1, n) - joined[n]
			:: else
			fi;
#ifdef FAIL_LATER
			joined[n] = 0;
#endif
			n++
		:: n == NR -> break
		od;
#ifdef FAIL_LATER
		unlock_ranges()
	}
	atomic {
		lock_ranges();
#endif
		joining = NONE;
		listed[1] = false;
		unlock_ranges()
	}
	atomic { domain_freed[1] = true }
joins:	atomic {
		n = NR;
		iommu_lock = false;
		if
		:: domain_freed[1] && !retried -> retried = true; goto again
		:: else
		fi
	}

	/* ---- the first domain goes, and then perhaps the second ---- */
	do
	:: atomic {
		v < ND && !domain_freed[v] ->
		if
		:: v == 1 -> break
		:: true
		fi;
		!iommu_lock -> iommu_lock = true
	   }
#ifndef NO_LAST_DOMAIN
	   if
	   :: atomic { !listed[1 - v] } -> unlink_from(0)
	   :: atomic { listed[1 - v] -> skip }
	   fi;
#endif
#ifdef FREE_LISTED
	   atomic { domain_freed[v] = true };
#endif
	   atomic {
		lock_ranges();
		listed[v] = false;
		n = 0;
		do
		:: n < NR ->
			PT(v, n) = 0;		/* goes with the domain */
			no_domain = linked[n] && !listed[1 - v];
			assert(!no_domain);
			n++
		:: n == NR -> break
		od;
		unlock_ranges()
	   }
	   atomic {
		domain_freed[v] = true;		/* iommu_domain_free() */
		iommu_lock = false;
		v++
	   }
	:: atomic { v == ND || domain_freed[v] -> break }
	od
}

init {
	byte r;

	atomic {
		listed[0] = true;
		do
		:: r < NR -> list[r] = r; r++
		:: r == NR -> r = 0; break
		od;
		run Mapper();
		run Device(0);
#ifdef TWO
		run Device(1);
#endif
		run Groups()
	}
	atomic {
		_nr_pr == 1 ->
		do
		:: r < NR ->
			left_suspended = linked[r] && !away[USER(r)] &&
					 !dead[USER(r)] && !owed[USER(r)] &&
					 !complete(r);
			assert(!left_suspended);
			r++
		:: r == NR -> break
		od
	}
}

package answer

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuestionsHoldNoMoreThanMemoryHasRoomFor(t *testing.T) {
	var m memory
	spend, done := m.spending()
	if err := spend(mostEdges); err != nil {
		t.Fatal(err)
	}
	other, otherDone := m.spending()
	if err := other(1); !errors.Is(err, ErrBusy) {
		t.Errorf("a second question beside one that takes all: %v", err)
	}
	otherDone()
	if err := spend(1); !errors.Is(err, ErrTooWide) {
		t.Errorf("one question that takes more than all: %v", err)
	}
	done()
	if n := m.edges.Load(); n != 0 {
		t.Errorf("%d edges are still counted after both questions ended", n)
	}
}

func TestKeptAnswersAreBoundedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k kept
		for n := range 10 {
			k.put(fmt.Sprint(n), n, mostKept/4)
		}
		if k.get("5") != nil || k.get("6") != 6 || k.size != mostKept {
			t.Errorf("of ten answers, each a quarter of the room, %d bytes and %v are kept", k.size, k.answers)
		}
		k.put("huge", 1, mostKept+1)
		k.put("", 1, 1)
		if k.get("huge") != nil || k.get("") != nil || k.get("6") != 6 {
			t.Error("an answer larger than the room, or one without a key, is kept")
		}
		time.Sleep(keepFor / 2) //nolint:forbidigo // the clock of the bubble, not ours
		k.get("9")
		time.Sleep(keepFor/2 + time.Second) //nolint:forbidigo // as above
		synctest.Wait()
		if len(k.answers) != 1 || k.get("9") != 9 {
			t.Errorf("after a while %v are kept, want the one that was used", k.answers)
		}
		time.Sleep(3 * keepFor) //nolint:forbidigo // as above
		synctest.Wait()
		if len(k.answers) != 0 || k.size != 0 || k.sweep != nil {
			t.Errorf("an idle service keeps %v", k.answers)
		}
	})
}

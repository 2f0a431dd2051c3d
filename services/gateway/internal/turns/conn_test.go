package turns

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// octets is a connection over which something always comes.
type octets struct{ net.Conn }

func (octets) Read(b []byte) (int, error) { return len(b), nil }
func (octets) Close() error               { return nil }

// looked are the moments at which what came over connections was looked at, so many times each, in milliseconds.
func looked(t *testing.T, times int, conns ...*Conn) []int64 {
	t.Helper()
	start, moments := time.Now(), make(chan int64, times*len(conns))
	for _, c := range conns {
		go func() {
			for range times {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Error(err)
				}
				moments <- time.Since(start).Milliseconds()
			}
		}()
	}
	var all []int64
	for range times * len(conns) {
		all = append(all, <-moments)
	}
	slices.Sort(all)
	return all
}

// several are neighbours.
func several() *Neighbours {
	n := &Neighbours{}
	n.Comes(&Neighbour{})
	n.Comes(&Neighbour{})
	return n
}

func TestConnectionsOverWhichATenantFloodsAreLookedAtOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Rate: 10, Burst: 2, Within: time.Second, Waiting: 1, Reads: 100}
		turns, loud, quiet := two(t, cfg)
		among := several()
		floods, calls, other, both := make([]*Conn, 3), turns.NewConn(octets{}, among), turns.NewConn(octets{}, among), turns.NewConn(octets{}, among)
		for i := range floods {
			floods[i] = turns.NewConn(octets{}, among)
			floods[i].Brings(loud)
			floods[i].Refused()
		}
		calls.Brings(loud)
		other.Brings(quiet)
		both.Brings(loud)
		both.Brings(quiet)
		both.Refused()
		if got, want := looked(t, 2, floods...), []int64{0, 10, 20, 30, 40, 50}; !slices.Equal(got, want) {
			t.Errorf("what a tenant floods with is looked at after %v, want %v", got, want)
		}
		// Those over which nothing was refused, another's, and those that a neighbour's calls come over too wait for nobody.
		if got := looked(t, 3, calls, other, both); got[len(got)-1] != 0 {
			t.Errorf("others are looked at after %v, want at once", got)
		}
		many := make([]*Conn, 300)
		for i := range many {
			many[i] = turns.NewConn(octets{}, among)
			many[i].Brings(loud)
			many[i].Refused()
		}
		if got := looked(t, 1, many...); got[len(got)-1] != cfg.Within.Milliseconds() {
			t.Errorf("of many the last is looked at after %v, want within %s", got[len(got)-1], cfg.Within)
		}
		time.Sleep(refusedLately) //nolint:forbidigo // the bubble's clock
		if got := looked(t, 2, many...); got[len(got)-1] != 0 {
			t.Errorf("a moment after the last refusal they are looked at after %v, want at once", got)
		}
	})
}

func TestConnectionThatIsClosedWaitsForNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 2, Within: time.Minute, Waiting: 1, Reads: 0.1})
		among := several()
		c := turns.NewConn(octets{}, among)
		c.Brings(loud)
		c.Refused()
		c.until.Store(time.Now().Add(time.Hour).UnixNano())
		looked(t, 1, c)
		start := time.Now()
		time.AfterFunc(time.Second, func() { _ = c.Close() })
		if looked(t, 1, c); time.Since(start) != time.Second {
			t.Errorf("it waited %s, and was closed after a second", time.Since(start))
		}
	})
}

func TestConnectionsOfATenantAloneWaitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, lane := New(Config{Rate: 10, Burst: 2, Within: time.Minute, Waiting: 1, Reads: 1}), &Lane{}
		among := &Neighbours{}
		among.Comes(&Neighbour{})
		c := turns.NewConn(octets{}, among)
		c.Brings(lane)
		c.Refused()
		if got := looked(t, 3, c); got[2] != 0 {
			t.Errorf("it is looked at after %v, want at once", got)
		}
	})
}

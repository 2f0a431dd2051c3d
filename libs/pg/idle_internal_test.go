package pg

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/pgtest"
)

// What a burst opened is closed although the pool is asked something all the while, as every service's is. Time goes ten times
// as fast, and no faster: pgxpool rests for half a second after it has closed any.
func TestPoolThatIsAskedAllTheWhileKeepsOneConnection(t *testing.T) {
	t.Parallel()
	const faster, most = 10, 4
	pc, err := pgxpool.ParseConfig(pgtest.New(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	pc.MaxConns = most
	shrinks(pc)
	pc.MaxConnIdleTime /= faster
	pc.HealthCheckPeriod /= faster
	pool, err := pgxpool.NewWithConfig(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var burst []*pgxpool.Conn
	for range most {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		burst = append(burst, c)
	}
	for _, c := range burst {
		c.Release()
	}
	tick := time.NewTicker(2 * time.Second / faster)
	defer tick.Stop()
	patience := time.After(20 * time.Second)
	for pool.Stat().TotalConns() > 1 {
		select {
		case <-tick.C:
			if err := pool.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		case <-patience:
			t.Fatalf("%d connections are open long after the burst", pool.Stat().TotalConns())
		}
	}
}

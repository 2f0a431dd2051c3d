package aws

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PricesCSV is the table of list prices, each with its source and a date: the day that the source is of or, where it doesn't say, on which it
// was read.
//
//go:embed prices.csv
var PricesCSV string

// Price is one line of the table.
type Price struct {
	// Item is what is paid for, Unit for how long: an hour or a month.
	Item, Unit string
	// USD is what one costs for one unit.
	USD float64
	// Region that it is of, Date of the source, and Source that says so.
	Region, Date, Source string
}

// monthHours is what AWS reckons a month with.
const monthHours = 730

// Month is what one costs for a month.
func (p Price) Month() float64 {
	if p.Unit == "hour" {
		return p.USD * monthHours
	}
	return p.USD
}

var priceColumns = []string{"item", "unit", "usd", "region", "date", "source"}

// ParsePrices reads a table, by item. Name is what errors call it; they name the line and the field too.
func ParsePrices(name string, from io.Reader) (map[string]Price, error) {
	r := csv.NewReader(from)
	r.FieldsPerRecord = len(priceColumns)
	head, err := r.Read()
	if err != nil && !errors.Is(err, csv.ErrFieldCount) {
		return nil, fmt.Errorf("read the head of %s: %w", name, err)
	}
	if !slices.Equal(head, priceColumns) {
		return nil, fmt.Errorf("%s: line 1 is %q: a table of prices begins with %q", name, strings.Join(head, ","), strings.Join(priceColumns, ","))
	}
	prices := map[string]Price{}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return prices, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		line, _ := r.FieldPos(0)
		p, err := price(fields)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, line, err)
		}
		if _, twice := prices[p.Item]; twice {
			return nil, fmt.Errorf("%s: line %d: item %q stands there already: keep one", name, line, p.Item)
		}
		prices[p.Item] = p
	}
}

func price(fields []string) (Price, error) {
	for i, f := range fields {
		if f == "" {
			return Price{}, fmt.Errorf("%s is empty: write it, or take the line out", priceColumns[i])
		}
	}
	p := Price{Item: fields[0], Unit: fields[1], Region: fields[3], Date: fields[4], Source: fields[5]}
	var err error
	if p.USD, err = strconv.ParseFloat(fields[2], 64); err != nil || !(p.USD >= 0 && p.USD < 1e6) {
		return Price{}, fmt.Errorf("usd is %q: it is a number of dollars, as 0.04", fields[2])
	}
	if p.Unit != "hour" && p.Unit != "month" {
		return Price{}, fmt.Errorf("unit is %q: it is hour or month", p.Unit)
	}
	if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
		return Price{}, fmt.Errorf("date is %q: it is a day, as 2026-03-14", p.Date)
	}
	return p, nil
}

"""What people look at: strip images and the offline HTML report."""

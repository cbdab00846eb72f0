"""Systems on splits of a task: cached responses, their measures, and analyses of them."""

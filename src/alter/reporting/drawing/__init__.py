"""Figures as SVG, drawn by matplotlib: text stays text, and colours are the page's, so that they change with light and dark."""
